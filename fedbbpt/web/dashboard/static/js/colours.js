// The colours of the current theme, as a canvas needs them: it cannot read CSS variables.

const probe = document.createElement("span");
probe.hidden = true;
document.documentElement.append(probe);

export function colour(name) {
  probe.className = `colour-${name}`;
  return getComputedStyle(probe).color;
}

// The same colour, more transparent.
export function faint(rgb, opacity) {
  const [r, g, b] = rgb.match(/[\d.]+/g);
  return `rgba(${r}, ${g}, ${b}, ${opacity})`;
}
