// One picture large, with what the judge found in it; in a comparison the same prompt and number of every run.
(() => {
  const gallery = page.gallery;
  if (!gallery) return;
  const { byId, make, words, number } = page;
  const { data, runs, isComparison } = gallery;
  const dialog = byId("viewer");
  let items = []; // {sample, output}, in the order of the gallery
  let place = 0;
  let isZoomed = false;

  const facts = (rows) => make("dl", { className: "facts" }, ...rows
    .filter(([, text]) => text !== "" && text !== null && text !== undefined)
    .map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(text)))));

  function framed(sample, output) {
    const frame = make("div", { className: "v-frame" }, ...(output.t === undefined && sample.in ? gallery.asked(sample) : [gallery.picture(sample, output)]));
    if (output.t === undefined && sample.in && sample.in.length > 1) frame.classList.add("v-many");
    if (output.t !== undefined && byId("v-boxes").checked) {
      for (const [name, x1, y1, x2, y2, score] of output.b || []) {
        const box = make("div", { className: "box" + (y1 < output.h * 0.12 ? " low" : ""), "aria-hidden": "true" }, make("span", {}, `${name} ${score.toFixed(2)}`));
        Object.assign(box.style, { left: `${(100 * x1) / output.w}%`, top: `${(100 * y1) / output.h}%`, width: `${(100 * (x2 - x1)) / output.w}%`, height: `${(100 * (y2 - y1)) / output.h}%` });
        frame.append(box);
      }
    }
    return make("div", { className: "v-scroll" + (isZoomed ? " zoomed" : ""), tabIndex: isZoomed ? 0 : -1, role: "group", "aria-label": "Picture" }, frame);
  }

  function told(sample, output) {
    const verdict = gallery.verdictOf(output);
    const found = (output.b || []).map((b) => `${b[0]} (${b[5].toFixed(2)})`).join(", ");
    const colors = (output.c || []).map(([name, asked, said, pixel]) => `${name}: asked ${asked}, judge ${said}${pixel ? ", pixels " + pixel : ""}`);
    const node = make("div", { className: "v-told" },
      make("p", { className: `verdict ${verdict}-v` }, `${gallery.MARK[verdict]} ${gallery.sayVerdict(output)}`),
      make("pre", { className: "v-reason" }, output.r || output.u || ""));
    node.append(facts([
      ["answer", output.x || output.a],
      ["read as", output.x && output.a && output.a !== output.x ? output.a : ""],
      ["expected", output.e],
      ["found", found || (output.t !== undefined && verdict !== "none" && output.d ? "nothing" : "")],
      ["colours", colors.join("; ")],
      ["questions", sample.Q ? "" : Object.entries(output.q || {}).map(([id, answer]) => `${id} ${answer}`).join(", ")],
      ["seed", output.s],
      ["size", output.w ? `${output.w} x ${output.h} px` : ""],
    ]));
    if (sample.Q && output.q) node.append(questionTree(sample.Q, output.q));
    return node;
  }

  // Each question below the first of those it rests on. One whose own answer is yes counts 0 where a parent's score is 0;
  // as the rules do, parents are looked at in the order of the questions.
  function questionTree(questions, answers) {
    const answerTo = (id) => (Object.hasOwn(answers, id) ? answers[id] : undefined);
    const score = new Map(questions.map(([id]) => [id, answerTo(id) === "yes" ? 1 : 0]));
    for (const [id, , , parents] of questions) if (parents.some((p) => score.get(p) === 0)) score.set(id, 0);
    const lists = new Map();
    const root = make("ul", { className: "q-tree" });
    for (const [id, text, kind, parents] of questions) {
      const answer = answerTo(id);
      const holds = score.get(id) === 1;
      const state = answer === undefined ? "none" : holds ? "right" : "wrong";
      const why = answer === "yes" && !holds ? `yes, but ${parents.filter((p) => score.get(p) === 0).join(", ")} does not hold` : answer === undefined ? "no answer" : answer;
      const item = make("li", {}, make("span", { className: `${state}-v q-mark` }, gallery.MARK[state]), ` ${id}. ${text || kind} `, make("b", {}, why), kind && text ? make("small", {}, ` ${kind}`) : "");
      const above = lists.get(parents[0]);
      if (above && !above.list) above.item.append(above.list = make("ul", {}));
      (above ? above.list : root).append(item);
      lists.set(id, { item, list: null });
    }
    const held = [...score.values()].filter((v) => v === 1).length;
    return make("details", { className: "q-box", open: true }, make("summary", {}, `${held} of ${questions.length} questions hold`), root);
  }

  function show() {
    const { sample, output } = items[place];
    const together = isComparison ? sample.o.filter((o) => o.i === output.i) : [output];
    byId("v-place").textContent = `${number(place + 1)} of ${number(items.length)}`;
    byId("v-prompt").textContent = sample.p;
    byId("v-prompt").dir = "auto";
    byId("v-meta").textContent = [words(data.groups[sample.g]), `${data.words.thing} ${sample.id}`, data.numbers ? gallery.numberOf(output) : `number ${output.i + 1}`, sample.h === true ? "combination kept out of training" : ""].filter(Boolean).join(" \u00b7 ");
    byId("v-body").className = isComparison ? "v-body many" : "v-body";
    byId("v-body").replaceChildren(...together.map((o) => isComparison
      ? make("section", { className: "v-run", "aria-label": runs[o.n || 0] }, make("h3", {}, runs[o.n || 0]), framed(sample, o), told(sample, o))
      : make("div", { className: "v-one" }, framed(sample, o), told(sample, o))));
    const [previous, next] = [byId("v-prev"), byId("v-next")];
    [previous.disabled, next.disabled] = [previous.disabled && place === 0, next.disabled && place === items.length - 1];
    page.disable(previous, place === 0, items.length > 1 ? next : byId("v-close"));
    page.disable(next, place === items.length - 1, items.length > 1 ? previous : byId("v-close"));
    byId("v-tools").hidden = !together.some((o) => o.t !== undefined);
  }

  function move(step) {
    const next = Math.max(0, Math.min(items.length - 1, place + step));
    if (next === place) return;
    place = next;
    show();
  }
  function zoom() {
    isZoomed = !isZoomed;
    byId("v-zoom").setAttribute("aria-pressed", String(isZoomed));
    show();
  }
  page.viewer = {
    open(sample, output) {
      items = [];
      for (const { sample: s, matching } of gallery.shown) {
        const seen = new Set();
        for (const o of matching) {
          if (isComparison && seen.has(o.i)) continue;
          seen.add(o.i);
          items.push({ sample: s, output: o });
        }
      }
      const same = (item) => item.sample === sample && (isComparison ? item.output.i === output.i : item.output === output);
      place = items.findIndex(same);
      if (place < 0) { // a dimmed picture: look at it among all of its prompt
        items = sample.o.map((o) => ({ sample, output: o }));
        place = items.findIndex(same);
      }
      show();
      dialog.showModal();
    },
  };
  byId("v-prev").addEventListener("click", () => move(-1));
  byId("v-next").addEventListener("click", () => move(1));
  byId("v-close").addEventListener("click", () => dialog.close());
  byId("v-boxes").addEventListener("change", show);
  byId("v-zoom").addEventListener("click", zoom);
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      ArrowLeft: () => move(-1), ArrowRight: () => move(1), PageUp: () => move(-1), PageDown: () => move(1),
      Home: () => move(-items.length), End: () => move(items.length),
      z: zoom, b: () => { byId("v-boxes").checked = !byId("v-boxes").checked; show(); },
    }[event.key];
    if (!act || (isZoomed && event.target.classList.contains("v-scroll") && event.key.startsWith("Arrow"))) return;
    event.preventDefault();
    act();
  });
  gallery.apply();
})();
