// Where records come from: streams of server-sent events for what goes on, and single requests for what is past.

// Follows a stream. `changed` gets each record, `lost` whether the dashboard itself answers. Returns a function that
// ends it. A browser opens a broken stream again by itself, and its first record is complete.
export function follow(address, changed, lost) {
  const source = new EventSource(address);
  source.addEventListener("open", () => lost(false));
  source.addEventListener("change", (event) => changed(JSON.parse(event.data)));
  source.addEventListener("end", () => source.close());
  source.addEventListener("error", () => {
    lost(true);
    // After a refusal a browser does not try again.
    if (source.readyState === EventSource.CLOSED) retry = setTimeout(again, 3000);
  });
  let retry = 0;
  let inner = null;
  const again = () => { inner = follow(address, changed, lost); };
  return () => { clearTimeout(retry); source.close(); inner?.(); };
}

export async function get(address) {
  const answer = await fetch(address, { headers: { accept: "application/json" } });
  const body = await answer.json();
  if (!answer.ok) throw new Error([body.where, body.what, body.fix].filter(Boolean).join(": "));
  return body;
}
