// The addresses of the page's views, after the #.

const part = encodeURIComponent;

export const liveAddress = (name) => `#/live/${part(name)}`;
export const pastAddress = (name) => `#/past/${part(name)}`;
export const compareAddress = (first, second) => `#/compare/${part(first)}/${part(second)}`;

// Returns the view and its arguments: ["", ...], ["live", NAME], ["past", NAME] or ["compare", NAME, NAME].
export const route = () => location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
