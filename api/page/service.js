// The HTTP service, and the one shape of its errors.

const KEY = "precedent-key";
let askForKey = null; // () => Promise<void>, set by the page

export class Problem extends Error {
  constructor(body) {
    super(body.detail || body.title || "The service did not answer.");
    this.status = body.status || 0;
    this.type = body.type || "";
  }
}

export const onKeyNeeded = (ask) => { askForKey = ask; };
export const keepKey = (key) => sessionStorage.setItem(KEY, key);
export const hasKey = () => sessionStorage.getItem(KEY) !== null;

function headers() {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function call(url, options = {}, again = true) {
  let reply;
  try {
    reply = await fetch(url, { ...options, headers: headers() });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ detail: "The service does not answer: is it still running?" });
  }
  if (reply.status === 401 && askForKey && again) {
    await askForKey();
    return call(url, options, false);
  }
  if (reply.ok) return reply;
  const body = await reply.json().catch(() => ({}));
  throw new Problem({ status: reply.status, ...body });
}

const json = async (url, options) => (await call(url, options)).json();
const path = (caseId) => `/v1/cases/${encodeURIComponent(caseId)}`;

export const gallery = () => json("/v1/gallery");
export const caseOf = (caseId) => json(path(caseId));

export function cases(filters, { after = 0, limit = 60 } = {}) {
  const query = new URLSearchParams({ limit, after });
  if (Object.keys(filters).length) query.set("filters", JSON.stringify(filters));
  return json(`/v1/cases?${query}`);
}

// asked: {files} or {caseId} or {text}, or text beside one of the others with {textWeight, fusion}; options: {k, filters, same_patient, group, rerank}
export function search(asked, options, signal) {
  const form = new FormData();
  for (const file of asked.files || []) form.append("files", file, file.name || "pasted");
  if (asked.caseId) form.set("case_id", asked.caseId);
  if (asked.text) form.set("text", asked.text);
  if (asked.text && (asked.files || asked.caseId)) {
    form.set("text_weight", String(asked.textWeight));
    form.set("fusion", asked.fusion);
  }
  for (const [name, value] of Object.entries(options)) {
    form.set(name, name === "filters" ? JSON.stringify(value) : String(value));
  }
  form.set("preview", "true");
  return json("/v1/search", { method: "POST", body: form, signal });
}

// A URL that an <img> can show. With a key the bytes are fetched here, since an <img> sends no Authorization header.
export async function picture(url) {
  if (!hasKey()) return url;
  return URL.createObjectURL(await (await call(url)).blob());
}

// Why an image did not load, in the service's words.
export async function whyNot(url) {
  try {
    await call(url);
    return "The image could not be shown.";
  } catch (problem) {
    return problem.message;
  }
}

export function imageUrl(base, { slice = 0, window = "", size = 0 } = {}) {
  const query = new URLSearchParams({ slice });
  if (window) query.set("window", window);
  if (size) query.set("size", size);
  return `${base}?${query}`;
}
