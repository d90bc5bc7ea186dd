// Definitions where they are needed: elements with data-def show the glossary's entry on hover, focus and tap.
(() => {
  const { byId, all, make } = page;
  const tip = make("div", { id: "tip", role: "tooltip", hidden: true });
  document.body.append(tip);
  let owner = null;

  function show(element) {
    const entry = byId(element.dataset.def);
    if (!entry) return;
    owner = element;
    tip.replaceChildren(make("p", {}, entry.textContent));
    if (element.dataset.more) tip.append(make("p", { className: "tip-more" }, element.dataset.more));
    tip.hidden = false;
    const place = element.getBoundingClientRect();
    const width = Math.min(340, document.documentElement.clientWidth - 24);
    tip.style.width = `${width}px`;
    const left = Math.max(12, Math.min(place.left, document.documentElement.clientWidth - width - 12));
    const below = place.bottom + 8;
    const above = place.top - tip.offsetHeight - 8;
    const top = below + tip.offsetHeight > innerHeight && above > 0 ? above : below;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${top + scrollY}px`;
  }
  function hide() {
    owner = null;
    tip.hidden = true;
  }
  for (const element of all("[data-def]")) {
    element.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") show(element); });
    element.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse" && !tip.matches(":hover")) hide(); });
    element.addEventListener("focus", () => show(element));
    element.addEventListener("blur", hide);
    element.addEventListener("click", () => show(element));
  }
  tip.addEventListener("pointerleave", hide);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && owner) hide(); });
  document.addEventListener("pointerdown", (event) => { if (owner && !owner.contains(event.target) && !tip.contains(event.target)) hide(); });
})();
