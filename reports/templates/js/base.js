"use strict";
// What the parts of the page's script share. Everything shown comes through textContent or properties, never innerHTML.
const page = {
  byId: (id) => document.getElementById(id),
  all: (selector, root) => [...(root || document).querySelectorAll(selector)],
  make(tag, properties, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties || {})) {
      if (name in node) node[name] = value;
      else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  },
  words: (name) => name.replaceAll("_", " "),
  number: (n) => n.toLocaleString("en-US"),
  // A disabled button that has the focus swallows keys: the focus goes to the button that still does something.
  disable(button, isDisabled, other) {
    if (isDisabled && document.activeElement === button) other.focus({ preventScroll: true });
    button.disabled = isDisabled;
  },
  json(id) {
    const node = page.byId(id);
    return node ? JSON.parse(node.textContent) : null;
  },
  save(blob, name) {
    const link = page.make("a", { href: URL.createObjectURL(blob), download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  },
};
document.documentElement.classList.add("js");
