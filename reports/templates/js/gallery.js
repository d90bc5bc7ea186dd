// Pictures and answers: filters, order, pages. Only the shown page is in the document, and pictures lie in blocks
// that are read when one of theirs is shown.
(() => {
  const { byId, all, make, words, number, json } = page;
  const data = json("g-data");
  if (!data) return;
  const runs = data.runs || [""];
  const isComparison = runs.length > 1;
  const filters = byId("filters");
  const field = Object.fromEntries(["group", "verdict", "kind", "half", "runs", "text", "failures", "order", "size"].map((n) => [n, byId(`f-${n}`)]));
  const MARK = { right: data.words.right_mark, wrong: data.words.wrong_mark, none: "?" };
  const blocks = new Map();
  const gallery = {
    data, runs, isComparison, shown: [], place: 0, MARK,
    verdictOf: (o) => (o.v === null ? "none" : o.v >= 1 ? "right" : "wrong"),
    // What an output is called: its number, or what the page says (training seeds of a sweep).
    numberOf: (o) => (data.numbers ? data.numbers[o.i] : String(o.i + 1)),
    sayVerdict: (o) => ({ right: data.words.right, none: "not scored", wrong: o.v > 0 ? `partly right, ${o.v.toFixed(2)}` : data.words.wrong })[gallery.verdictOf(o)],
    encoded(number_) {
      const block = Math.floor(number_ / data.perBlock);
      if (!blocks.has(block)) blocks.set(block, json(`g-block-${block}`));
      return blocks.get(block)[number_ % data.perBlock];
    },
    image(number_, width, height, alt) {
      const image = make("img", { alt, decoding: "async", width, height, src: "data:image/webp;base64," + gallery.encoded(number_) });
      if (Math.max(width, height) <= data.crispBelow) image.classList.add("crisp");
      return image;
    },
    picture(sample, output) {
      if (output.t === undefined) return make("span", { className: "blank" }, output.x || (output.u ? "not scored" : "no picture"));
      return gallery.image(output.t, output.w, output.h, `Picture ${gallery.numberOf(output)} for \u201c${sample.p.slice(0, 200)}\u201d: ${gallery.sayVerdict(output)}`);
    },
    // What a question is about, or an edit starts from.
    asked: (sample) => (sample.in || []).map(([n, width, height], i) => gallery.image(n, width, height, `Picture ${i + 1} that the ${data.words.thing} is about`)),
  };
  page.gallery = gallery;
  let current = 0;

  data.groups.forEach((name, i) => field.group.append(make("option", { value: String(i) }, words(name))));
  data.kinds.forEach((name, i) => { if (name !== "right" && name !== "not scored") field.kind.append(make("option", { value: String(i) }, name)); });
  byId("f-half-label").hidden = !data.samples.some((s) => s.h === true);
  byId("f-runs-label").hidden = !isComparison;
  const total = data.samples.reduce((n, s) => n + s.o.length, 0);
  // Made when first asked for: a page of ten thousand outputs should open before it is searched.
  const searchOf = (sample) => sample.search ??= [sample.p, sample.id, ...sample.o.flatMap((o) => [o.r, o.u, o.a, o.x])].filter(Boolean).join("\n").toLowerCase();
  function meanOf(sample) {
    const scored = sample.o.filter((o) => o.v !== null);
    return scored.length ? scored.reduce((n, o) => n + o.v, 0) / scored.length : -1;
  }

  function agreement(sample) {
    const right = runs.map((_, run) => {
      const own = sample.o.filter((o) => (o.n || 0) === run && o.v !== null);
      return own.length ? own.filter((o) => o.v >= 1).length / own.length : null;
    }).filter((share) => share !== null);
    if (right.length < 2) return "";
    return right.every((r) => r === 1) ? "right" : right.every((r) => r === 0) ? "wrong" : new Set(right).size > 1 ? "differ" : "";
  }
  const ORDERS = {
    "": null,
    number: (a, b) => a.id.localeCompare(b.id, "en", { numeric: true }),
    worst: (a, b) => meanOf(a) - meanOf(b),
    best: (a, b) => meanOf(b) - meanOf(a),
  };

  function apply() {
    const texts = field.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const pick = (name) => (field[name].value === "" ? null : Number(field[name].value));
    const [group, kind] = [pick("group"), pick("kind")];
    const [verdict, half, both, failures] = [field.verdict.value, field.half.value, field.runs.value, field.failures.checked];
    const fits = (o) => (verdict === "" || gallery.verdictOf(o) === verdict) && (kind === null || o.k.includes(kind)) && (!failures || gallery.verdictOf(o) !== "right");
    let outputs = 0;
    gallery.shown = [];
    for (const sample of data.samples) {
      if (group !== null && sample.g !== group) continue;
      if (half !== "" && sample.h !== (half === "unseen")) continue;
      if (both !== "" && agreement(sample) !== both) continue;
      if (!texts.every((text) => searchOf(sample).includes(text))) continue;
      const matching = new Set(sample.o.filter(fits));
      if (!matching.size) continue;
      outputs += matching.size;
      gallery.shown.push({ sample, matching });
    }
    const order = ORDERS[field.order.value];
    if (order) gallery.shown.sort((a, b) => order(a.sample, b.sample));
    gallery.said = gallery.shown.length
      ? `${number(outputs)} of ${number(total)} outputs, ${number(gallery.shown.length)} ${data.words.thing}${gallery.shown.length === 1 ? "" : "s"}`
      : "Nothing matches these filters.";
    draw();
  }

  function card({ sample, matching }) {
    const heading = make("h3", { dir: "auto" }, sample.p);
    const meta = make("p", { className: "meta" }, `${words(data.groups[sample.g])} \u00b7 ${sample.id}`);
    if (sample.h === true) meta.append(" \u00b7 combination never seen");
    const thumbs = make("div", { className: isComparison ? "runs" : "thumbs" });
    const asked = gallery.asked(sample).map((image) => make("span", { className: "asked" }, image));
    if (!isComparison) thumbs.append(...asked);
    const own = new Map();
    for (const output of sample.o) {
      const verdict = gallery.verdictOf(output);
      const button = make("button", { type: "button", className: `thumb ${verdict}-v`, title: output.r || output.u || gallery.sayVerdict(output) });
      button.append(gallery.picture(sample, output), make("span", { className: "mark", "aria-hidden": "true" }, MARK[verdict]));
      const of = isComparison ? `${runs[output.n || 0]}, ` : "";
      button.setAttribute("aria-label", `${of}${output.t === undefined ? "output" : "picture"} ${gallery.numberOf(output)}, ${gallery.sayVerdict(output)}: open`);
      if (!matching.has(output)) button.classList.add("off");
      button.addEventListener("click", () => page.viewer.open(sample, output));
      if (isComparison) {
        const run = output.n || 0;
        if (!own.has(run)) {
          own.set(run, make("div", { className: "thumbs" }));
          if (data.numbers) own.get(run).style.gridTemplateColumns = `repeat(${Math.min(4, Math.max(2, data.numbers.length))}, 1fr)`;
          thumbs.append(make("div", {}, make("p", { className: "run-name", title: runs[run] }, runs[run]), own.get(run)));
        }
        own.get(run).append(button);
      } else thumbs.append(button);
    }
    const about = isComparison && asked.length ? [make("div", { className: "thumbs" }, ...asked)] : [];
    return make("article", { className: "card" }, heading, meta, ...about, thumbs);
  }

  const PER_PAGE = { small: 60, "": isComparison ? 12 : 24, large: 8 };
  function draw() {
    const size = field.size.value;
    const perPage = PER_PAGE[size];
    const pages = Math.max(1, Math.ceil(gallery.shown.length / perPage));
    current = Math.max(0, Math.min(current, pages - 1));
    byId("g-grid").className = `grid ${size}`;
    byId("g-grid").replaceChildren(...gallery.shown.slice(current * perPage, (current + 1) * perPage).map(card));
    byId("g-count").textContent = pages > 1 ? `${gallery.said}; page ${number(current + 1)} of ${number(pages)}` : gallery.said;
    const [isFirst, isLast] = [current === 0, current >= pages - 1];
    for (const end of ["", "2"]) {
      const [previous, next] = [byId(`g-prev${end}`), byId(`g-next${end}`)];
      [previous.disabled, next.disabled] = [previous.disabled && isFirst, next.disabled && isLast];
      page.disable(previous, isFirst, next);
      page.disable(next, isLast, previous);
    }
    byId("g-bottom").hidden = pages === 1;
  }

  // Arrow keys walk from picture to picture; Tab works as ever.
  byId("g-grid").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step && event.key !== "Home" && event.key !== "End") return;
    const thumbs = all(".thumb", byId("g-grid"));
    const next = event.key === "Home" ? 0 : event.key === "End" ? thumbs.length - 1 : thumbs.indexOf(document.activeElement) + step;
    if (!thumbs[next]) return;
    event.preventDefault();
    thumbs[next].focus();
  });

  const turn = (step) => { current += step; draw(); };
  byId("g-prev").addEventListener("click", () => turn(-1));
  byId("g-next").addEventListener("click", () => turn(1));
  const turnToTop = (step) => { turn(step); byId("gallery").scrollIntoView(); byId("g-grid").querySelector(".thumb")?.focus({ preventScroll: true }); };
  byId("g-prev2").addEventListener("click", () => turnToTop(-1));
  byId("g-next2").addEventListener("click", () => turnToTop(1));
  filters.addEventListener("submit", (event) => event.preventDefault());
  let pause = 0;
  filters.addEventListener("input", (event) => {
    const renew = () => { current = 0; apply(); };
    clearTimeout(pause);
    if (event.target === field.text) pause = setTimeout(renew, 120); // once the fingers rest
    else renew(); // a choice shows at once
  });
  filters.addEventListener("reset", () => setTimeout(() => { current = 0; apply(); }));

  function jump(changes) {
    filters.reset();
    setTimeout(() => {
      for (const [name, value] of Object.entries(changes)) field[name].value = value;
      current = 0;
      apply();
      byId("h-gallery").focus();
      byId("gallery").scrollIntoView();
    });
  }
  for (const button of all("[data-show-group]")) button.addEventListener("click", () => jump({ group: String(data.groups.indexOf(button.dataset.showGroup)) }));
  for (const button of all("[data-show-text]")) button.addEventListener("click", () => jump({ text: button.dataset.showText }));
  for (const button of all("[data-show-kind]")) button.addEventListener("click", () => {
    const kind = button.dataset.showKind;
    jump(kind === "right" ? { verdict: "right" } : kind === "not scored" ? { verdict: "none" } : { kind: String(data.kinds.indexOf(kind)) });
  });
  gallery.apply = apply;
})();
