// Every figure as SVG and PNG, its data as CSV; and the files of the data section. All from inside the page.
(() => {
  const { byId, all, make, json, save } = page;
  const files = json("files") || {};
  const saveFile = (name) => save(new Blob([files[name].text], { type: `${files[name].type};charset=utf-8` }), name);
  for (const button of all("[data-file]")) button.addEventListener("click", () => saveFile(button.dataset.file));

  // A saved figure goes into papers and slides: always in the colours of the light page, on white.
  const light = [...document.styleSheets[0].cssRules].find((rule) => rule.selectorText === ":root").style;
  const FONT = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif";
  function sourceOf(figure) {
    const drawn = all("svg", figure).find((svg) => svg.getClientRects().length) || figure.querySelector("svg");
    const svg = drawn.cloneNode(true);
    const [, , width, height] = svg.getAttribute("viewBox").split(/[ ,]+/).map(Number);
    svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    svg.setAttribute("font-family", FONT);
    const back = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    back.setAttribute("width", "100%");
    back.setAttribute("height", "100%");
    back.setAttribute("fill", "#ffffff");
    const [x, y] = svg.getAttribute("viewBox").split(/[ ,]+/);
    back.setAttribute("x", x);
    back.setAttribute("y", y);
    const after = svg.querySelector("desc");
    after.after(back);
    const text = new XMLSerializer().serializeToString(svg).replace(/var\((--[\w-]+)\)/g, (_, name) => light.getPropertyValue(name).trim() || "#000");
    return { text, width, height };
  }
  function saveSvg(figure) {
    save(new Blob([sourceOf(figure).text], { type: "image/svg+xml" }), `${figure.dataset.figure}.svg`);
  }
  function savePng(figure) {
    const { text, width, height } = sourceOf(figure);
    const image = new Image();
    image.addEventListener("load", () => {
      const scale = Math.max(2, Math.ceil(1200 / width));
      const canvas = make("canvas", { width: Math.round(width * scale), height: Math.round(height * scale) });
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => save(blob, `${figure.dataset.figure}.png`), "image/png");
    });
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  }
  for (const figure of all("figure[data-figure]")) {
    const what = figure.dataset.title || "this figure";
    const tool = (text, act) => {
      const button = make("button", { type: "button", "aria-label": `Save ${what} as ${text}` }, text);
      button.addEventListener("click", act);
      return button;
    };
    const tools = make("div", { className: "tools", role: "group", "aria-label": `Save ${what}` });
    if (figure.querySelector("svg")) tools.append(tool("SVG", () => saveSvg(figure)), tool("PNG", () => savePng(figure)));
    const csv = figure.dataset.csv;
    if (csv && files[csv]) tools.append(tool("CSV", () => saveFile(csv)));
    (figure.querySelector("figcaption") || figure).append(tools);
  }
})();
