// Texts whose contrast with what lies behind them is below WCAG AA: 4.5, or 3 for large text. Texts in drawings are
// left out, as their background is not a CSS one; so are disabled controls.
() => {
  const parse = (text) => (text.match(/[\d.]+/g) || []).map(Number);
  const over = (top, under) => { const a = top[3] ?? 1; return [0, 1, 2].map((i) => top[i] * a + under[i] * (1 - a)); };
  const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (node) => {
    const layers = [];
    for (let n = node; n; n = n.parentElement) layers.push(parse(getComputedStyle(n).backgroundColor));
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const bad = [];
  for (const node of document.querySelectorAll("body *")) {
    const has = [...node.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim());
    if (!has || node.closest("svg, script, :disabled, .off, .sr, .box") || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const back = behind(node);
    const [x, y] = [light(over(parse(style.color), back)), light(back)].sort((a, b) => b - a);
    const ratio = (x + 0.05) / (y + 0.05);
    const size = parseFloat(style.fontSize);
    const needed = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if (ratio < needed) bad.push(`${node.tagName}.${node.className} ${node.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return bad;
}
