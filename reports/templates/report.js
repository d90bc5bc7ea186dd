"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  // Everything shown comes through textContent or properties, never through innerHTML.
  const make = (tag, properties, ...children) => {
    const node = Object.assign(document.createElement(tag), properties || {});
    node.append(...children);
    return node;
  };
  const words = (name) => name.replaceAll("_", " ");
  const number = (n) => n.toLocaleString("en-US");

  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    const sort = (column) => {
      const head = heads[column];
      const down = head.getAttribute("aria-sort") !== "descending";
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].textContent.trim();
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        const [p, q] = [parseFloat(x), parseFloat(y)];
        if (Number.isNaN(p) !== Number.isNaN(q)) return Number.isNaN(p) ? 1 : -1;
        const order = Number.isNaN(p) ? x.localeCompare(y) : p - q;
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows);
    };
    heads.forEach((head, column) => {
      head.tabIndex = 0;
      head.title = "Sort by this column";
      head.addEventListener("click", () => sort(column));
      head.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          sort(column);
        }
      });
    });
  }
  document.querySelectorAll("table.sortable").forEach(sortable);

  const source = byId("g-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const runs = data.runs || [""];
  const PER_PAGE = runs.length > 1 ? 12 : 24;
  const filters = byId("filters");
  const field = { group: byId("f-group"), verdict: byId("f-verdict"), kind: byId("f-kind"), half: byId("f-half"), text: byId("f-text") };
  let page = 0;
  let shown = []; // samples with at least one matching output
  let flat = []; // matching outputs in order, for the viewer
  let place = 0;

  data.groups.forEach((name, i) => field.group.append(make("option", { value: String(i) }, words(name))));
  data.kinds.forEach((name, i) => {
    if (name !== "right" && name !== "not scored") field.kind.append(make("option", { value: String(i) }, name));
  });
  byId("f-half-label").hidden = !data.samples.some((s) => s.h === true);

  const verdictOf = (o) => (o.v === null ? "none" : o.v >= 1 ? "right" : "wrong");
  const sayVerdict = (o) => ({ right: "right", none: "not scored", wrong: o.v > 0 ? "partly right, " + o.v : "wrong" })[verdictOf(o)];
  const mark = { right: "\u2713", wrong: "\u2715", none: "?" };

  function apply() {
    const text = field.text.value.trim().toLowerCase();
    const group = field.group.value === "" ? null : Number(field.group.value);
    const kind = field.kind.value === "" ? null : Number(field.kind.value);
    const verdict = field.verdict.value;
    const half = field.half.value;
    const fits = (o) => (verdict === "" || verdictOf(o) === verdict) && (kind === null || o.k.includes(kind));
    shown = [];
    flat = [];
    let outputs = 0;
    for (const sample of data.samples) {
      if (group !== null && sample.g !== group) continue;
      if (half !== "" && sample.h !== (half === "unseen")) continue;
      if (text !== "" && !sample.p.toLowerCase().includes(text)) continue;
      const matching = new Set(sample.o.filter(fits));
      if (!matching.size) continue;
      outputs += matching.size;
      shown.push({ sample, matching });
      for (const output of matching) flat.push({ sample, output });
    }
    byId("g-count").textContent = shown.length
      ? `${number(outputs)} of ${number(total)} outputs, ${number(shown.length)} prompts`
      : "Nothing matches these filters.";
    page = Math.min(page, Math.max(0, Math.ceil(shown.length / PER_PAGE) - 1));
    draw();
  }
  const total = data.samples.reduce((n, s) => n + s.o.length, 0);

  function picture(sample, output, className) {
    if (!output.t) {
      return make("span", { className: "blank" }, output.x || (output.u ? "not scored" : "no picture"));
    }
    const image = make("img", {
      src: "data:image/webp;base64," + output.t,
      alt: `Picture ${output.i + 1} for \u201c${sample.p.slice(0, 200)}\u201d: ${sayVerdict(output)}`,
      loading: "lazy",
      decoding: "async",
      className,
    });
    if (Math.max(output.w, output.h) <= data.crispBelow) image.classList.add("crisp");
    return image;
  }

  function card({ sample, matching }) {
    const heading = make("h3", { dir: "auto" }, sample.p);
    const meta = make("p", { className: "meta" }, `${words(data.groups[sample.g])} \u00b7 ${sample.id}`);
    if (sample.h === true) meta.append(" \u00b7 combination never seen");
    const thumbs = make("div", { className: runs.length > 1 ? "runs" : "thumbs" });
    const blocks = new Map();
    for (const output of sample.o) {
      const verdict = verdictOf(output);
      const button = make("button", { type: "button", className: `thumb ${verdict}-v` }, picture(sample, output, ""), make("span", { className: "mark", ariaHidden: "true" }, mark[verdict]));
      button.title = output.r || output.u || sayVerdict(output);
      button.setAttribute("aria-label", `Picture ${output.i + 1}, ${sayVerdict(output)}: open`);
      if (!matching.has(output)) button.classList.add("off");
      button.addEventListener("click", () => open(sample, output));
      if (runs.length > 1) {
        const run = output.n || 0;
        if (!blocks.has(run)) {
          blocks.set(run, make("div", { className: "thumbs" }));
          thumbs.append(make("div", {}, make("p", { className: "run-name" }, runs[run]), blocks.get(run)));
        }
        blocks.get(run).append(button);
      } else {
        thumbs.append(button);
      }
    }
    return make("article", { className: "card" }, heading, meta, thumbs);
  }

  function draw() {
    const pages = Math.max(1, Math.ceil(shown.length / PER_PAGE));
    byId("g-grid").replaceChildren(...shown.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(card));
    byId("g-page").textContent = `${page + 1} / ${pages}`;
    for (const id of ["g-prev", "g-prev2"]) byId(id).disabled = page === 0;
    for (const id of ["g-next", "g-next2"]) byId(id).disabled = page >= pages - 1;
  }

  const viewer = byId("viewer");
  function facts(rows) {
    return rows.filter(([, text]) => text !== "" && text != null).map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(text))));
  }

  function show() {
    const { sample, output } = flat[place];
    const verdict = verdictOf(output);
    const frame = byId("v-frame");
    frame.replaceChildren(picture(sample, output, ""));
    if (output.t && byId("v-boxes").checked) {
      for (const [name, x1, y1, x2, y2, score] of output.b || []) {
        const box = make("div", { className: "box" + (y1 < output.h * 0.12 ? " low" : "") }, make("span", {}, `${name} ${score.toFixed(2)}`));
        Object.assign(box.style, { left: `${(100 * x1) / output.w}%`, top: `${(100 * y1) / output.h}%`, width: `${(100 * (x2 - x1)) / output.w}%`, height: `${(100 * (y2 - y1)) / output.h}%` });
        frame.append(box);
      }
    }
    byId("v-place").textContent = `${number(place + 1)} of ${number(flat.length)}${runs.length > 1 ? " \u00b7 " + runs[output.n || 0] : ""}`;
    byId("v-prompt").textContent = sample.p;
    byId("v-prompt").dir = "auto";
    byId("v-verdict").className = `verdict ${verdict}-v`;
    byId("v-verdict").textContent = `${mark[verdict]} ${sayVerdict(output)}`;
    byId("v-reason").textContent = output.r || output.u || "";
    const colors = (output.c || []).map(([name, asked, said, pixel]) => `${name}: asked ${asked}, judge ${said}${pixel ? ", pixels " + pixel : ""}`);
    byId("v-facts").className = "facts";
    byId("v-facts").replaceChildren(...facts([
      ["group", words(data.groups[sample.g])],
      ["answer", output.x || output.a],
      ["found", (output.b || []).map((b) => `${b[0]} (${b[5].toFixed(2)})`).join(", ") || (output.t && verdict !== "none" ? "nothing that was asked for" : "")],
      ["colours", colors.join("; ")],
      ["combination", sample.h === true ? "kept out of training" : ""],
      ["prompt id", sample.id],
      ["picture", output.i + 1],
      ["seed", output.s],
      ["size", output.w ? `${output.w} x ${output.h} px` : ""],
    ]));
    byId("v-prev").disabled = place === 0;
    byId("v-next").disabled = place === flat.length - 1;
  }

  function open(sample, output) {
    place = flat.findIndex((item) => item.output === output);
    if (place < 0) { // a dimmed picture: look at it among all pictures of its prompt
      flat = sample.o.map((o) => ({ sample, output: o }));
      place = sample.o.indexOf(output);
      viewer.addEventListener("close", apply, { once: true });
    }
    show();
    viewer.showModal();
  }
  const move = (step) => {
    const next = place + step;
    if (next >= 0 && next < flat.length) {
      place = next;
      show();
    }
  };
  byId("v-prev").addEventListener("click", () => move(-1));
  byId("v-next").addEventListener("click", () => move(1));
  byId("v-close").addEventListener("click", () => viewer.close());
  byId("v-boxes").addEventListener("change", show);
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") move(-1);
    if (event.key === "ArrowRight") move(1);
  });

  const turn = (step) => { page += step; draw(); };
  for (const id of ["g-prev", "g-prev2"]) byId(id).addEventListener("click", () => turn(-1));
  for (const id of ["g-next", "g-next2"]) byId(id).addEventListener("click", () => turn(1));
  for (const id of ["g-prev2", "g-next2"]) byId(id).addEventListener("click", () => byId("gallery").scrollIntoView());
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("input", () => { page = 0; apply(); });
  filters.addEventListener("reset", () => setTimeout(() => { page = 0; apply(); }));

  const jump = (changes) => {
    filters.reset();
    for (const [name, value] of Object.entries(changes)) field[name].value = value;
    page = 0;
    apply();
    byId("gallery").scrollIntoView();
  };
  document.querySelectorAll("[data-show-group]").forEach((button) => button.addEventListener("click", () => setTimeout(() => jump({ group: String(data.groups.indexOf(button.dataset.showGroup)) }))));
  document.querySelectorAll("[data-show-kind]").forEach((button) => button.addEventListener("click", () => {
    const kind = button.dataset.showKind;
    const changes = kind === "right" ? { verdict: "right" } : kind === "not scored" ? { verdict: "none" } : { kind: String(data.kinds.indexOf(kind)) };
    setTimeout(() => jump(changes));
  }));
  apply();
})();
