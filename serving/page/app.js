// The page: asks the service, and draws what it says. Data reaches the document as text only, never as markup.

const SHOWN = 20; // hits or items asked for at once
const SNIPPET = 320; // characters

let collection = "default"; // whom is asked
const path = (what) => `collections/${collection}/${what}`;

const byId = (id) => document.getElementById(id);

/** Make an element: properties that exist are set, "class" and "aria-…" become attributes, children are appended. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined) continue;
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Ask the service; throws an Error with the service's own message, and its type as `type`. */
async function ask(path, request) {
  const key = sessionStorage.getItem("key");
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const options = request
    ? { method: "POST", headers: { ...headers, "content-type": "application/json" }, body: JSON.stringify(request) }
    : { headers };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw Object.assign(new Error("The service cannot be reached."), { type: "unavailable" });
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer) return answer;
  if (response.status === 401) {
    await askForKey(answer?.error?.message ?? "");
    return ask(path, request);
  }
  const detail = answer?.error ?? { type: "internal", message: `The service answered ${response.status}.` };
  throw Object.assign(new Error(detail.message), { type: detail.type });
}

/** Let a person give a key, which is kept for as long as the tab is open. */
function askForKey(message) {
  const dialog = byId("key-dialog");
  byId("key-message").textContent = message;
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      sessionStorage.setItem("key", byId("key").value.trim());
      resolve();
    }, { once: true });
  });
}

const count = (number, one, many = one + "s") => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

/** A weight or score as people read it: two decimals, fewer for large ones, more for tiny ones. */
function weight(value) {
  const size = Math.abs(value);
  if (size > 0 && size < 0.01) return value.toPrecision(2);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : 2;
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** A named value with a bar behind it, as long as its share (0 to 1). */
function bar(tag, name, value, share, title) {
  const element = make(tag, { class: "bar", title },
    make("span", { class: "term" }, name), make("span", { class: "value" }, value));
  element.style.setProperty("--share", Math.max(0, Math.min(1, share || 0)).toFixed(4));
  return element;
}

/** Show the first few, and a button for the rest. */
function fewThenAll(list, button, elements, few) {
  const showAll = (all) => {
    list.replaceChildren(...(all ? elements : elements.slice(0, few)));
    button.textContent = all ? "Show fewer" : `Show all ${elements.length}`;
    button.onclick = () => showAll(!all);
  };
  button.hidden = elements.length <= few;
  showAll(false);
}

// -- search ------------------------------------------------------------------------------------------

const asked = { search: 0, recommend: 0 }; // questions so far: an answer that a newer question has overtaken is dropped

const NOTHING = { hits: [], expansion: [] };

async function search() {
  const query = byId("query").value.trim();
  const filters = chosenFilters();
  remember({ ...(collection === "default" ? {} : { c: collection }), q: query, ...Object.fromEntries(Object.entries(filters).map(([column, value]) => [`f.${column}`, JSON.stringify(value)])) });
  const number = ++asked.search;
  byId("hits-more").hidden = true;
  if (!query) return showSearch("", NOTHING);
  byId("hits").setAttribute("aria-busy", "true");
  try {
    const answer = await ask(path("search"), { query, filters, k: SHOWN, snippet_chars: SNIPPET });
    if (number !== asked.search) return;
    const found = answer.hits.length;
    const best = found < SHOWN ? count(found, "document") : `The best ${found} documents`;
    const without = answer.degraded.length ? `, without ${answer.degraded.join(" and ")}, which did not answer` : "";
    showSearch(found ? `${best} in ${weight(answer.took_ms)} ms${without}` : nothingFound(answer, filters), answer);
    offerMore(query, filters, number, found);
  } catch (error) {
    if (number === asked.search) showSearch(error.message, NOTHING, true);
  } finally {
    byId("hits").removeAttribute("aria-busy");
  }
}

/** A button for the next page, if the last one was full. */
function offerMore(query, filters, number, found, last = found) {
  const more = byId("hits-more");
  more.hidden = last < SHOWN;
  more.onclick = async () => {
    more.disabled = true;
    try {
      const next = await ask(path("search"), { query, filters, k: SHOWN, offset: found, snippet_chars: SNIPPET });
      if (number !== asked.search) return;
      const elements = next.hits.map(hitElement);
      byId("hits").append(...elements);
      elements[0]?.focus();
      offerMore(query, filters, number, found + next.hits.length, next.hits.length);
    } catch (error) {
      byId("search-status").textContent = error.message;
      more.hidden = true;
    } finally {
      more.disabled = false;
    }
  };
}

function nothingFound(answer, filters) {
  if (!answer.expansion.length) return "None of these words is in the vocabulary. Try others.";
  return Object.keys(filters).length
    ? "No document that passes the filters shares a term with the query."
    : "No document shares a term with the query.";
}

function showSearch(status, answer, isBad = false) {
  byId("search-status").textContent = status;
  byId("search-status").classList.toggle("bad", isBad);
  const { expansion, hits } = answer;
  byId("expansion").hidden = !expansion.length;
  byId("intro").hidden = Boolean(status);
  byId("expansion-title").textContent = `Your query: ${count(expansion.length, "term")}`;
  const heaviest = expansion[0]?.weight;
  const terms = expansion.map(({ term, weight: value }) => bar("li", term, weight(value), value / heaviest, `${term}: weight ${weight(value)}`));
  fewThenAll(byId("expansion-terms"), byId("expansion-more"), terms, 15);
  byId("hits").replaceChildren(...hits.map(hitElement));
}

function hitElement(hit) {
  const title = hit.title || hit.id;
  const about = [];
  if (!title.startsWith(hit.id)) about.push(make("span", {}, hit.id));
  for (const [column, value] of Object.entries(hit.metadata)) {
    if (value === null || value === "" || value === hit.id || value === title) continue;
    about.push(make("span", {}, `${column} `, make("b", {}, typeof value === "object" ? JSON.stringify(value) : String(value))));
  }
  for (const [retriever, { rank, score }] of Object.entries(hit.found_by)) {
    about.push(make("span", { class: "rank", title: `Score ${weight(score)}` }, `${retriever} `, make("b", {}, `no. ${rank}`)));
  }
  const element = make("li", { class: "hit", tabIndex: -1, "aria-label": title },
    make("header", {}, make("h2", {}, title), make("span", { class: "score", title: "Score" }, weight(hit.score))));
  if (about.length) element.append(make("p", { class: "about" }, ...about));
  if (hit.snippet) element.append(snippetElement(hit.snippet));
  else if (hit.text) element.append(...textElements(hit.text));
  if (hit.matches.length) element.append(whyElement(hit.matches));
  return element;
}

/** The part of a text that says most of the query; places are counted in characters, not in JavaScript's units. */
function snippetElement({ text, marks }) {
  const characters = [...text];
  const parts = [];
  let at = 0;
  for (const [start, end] of marks) {
    parts.push(characters.slice(at, start).join(""), make("mark", {}, characters.slice(start, end).join("")));
    at = end;
  }
  return make("p", { class: "text" }, ...parts, characters.slice(at).join(""));
}

function textElements(text) {
  const body = make("p", { class: "text clipped" }, text);
  const more = make("button", { class: "link", type: "button", textContent: "Show more", hidden: true });
  more.onclick = () => {
    more.textContent = body.classList.toggle("clipped") ? "Show more" : "Show less";
  };
  requestAnimationFrame(() => { more.hidden = body.scrollHeight <= body.clientHeight + 1; });
  return [body, more];
}

function whyElement(matches) {
  const largest = Math.max(...matches.map((match) => match.contribution));
  const bars = matches.map((match) => bar("li", match.term, weight(match.contribution), match.contribution / largest,
    `${match.term}: ${weight(match.query_weight)} in the query × ${weight(match.document_weight)} in the document = ${weight(match.contribution)}`));
  const list = make("ol", { class: "bars matches" });
  const more = make("button", { class: "link", type: "button" });
  fewThenAll(list, more, bars, 6);
  const title = `Why: ${count(matches.length, "matching term")}, by what each adds to the score`;
  return make("section", { class: "why" }, make("h3", {}, title), list, more);
}

// -- filters -----------------------------------------------------------------------------------------

const ANY = "";

function showFilters(facets) {
  const fromUrl = new URLSearchParams(location.search);
  byId("filters").replaceChildren(...facets.map(({ column, values }) => {
    const select = make("select", { name: column, onchange: search }, make("option", { value: ANY }, "any"));
    for (const { value, count: number } of values) {
      select.append(make("option", { value: JSON.stringify(value) }, `${value === "" ? "(none)" : value} (${number.toLocaleString("en")})`));
    }
    select.value = fromUrl.get(`f.${column}`) ?? ANY;
    if (select.selectedIndex < 0) select.value = ANY;
    return make("label", {}, column, select);
  }));
  byId("filters").hidden = !facets.length;
}

function chosenFilters() {
  const chosen = Object.create(null); // a column may be called as a property of every object
  for (const select of byId("filters").querySelectorAll("select")) {
    select.classList.toggle("set", select.value !== ANY);
    if (select.value !== ANY) chosen[select.name] = JSON.parse(select.value);
  }
  return chosen;
}

/** Keep the question in the address, so that it can be reloaded, marked and sent to someone. */
function remember(values) {
  const url = new URL(location.href);
  url.search = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== "")).toString();
  window.history.replaceState(null, "", url);
}

// -- recommendations ---------------------------------------------------------------------------------

const seen = []; // the history that recommendations rest on
let unknown = new Set();

const mode = () => document.querySelector("input[name=mode]:checked").value;

function addToHistory(item) {
  if (item && !seen.includes(item)) seen.push(item);
  recommend();
}

function removeFromHistory(item) {
  seen.splice(seen.indexOf(item), 1);
  recommend();
  byId("item").focus();
}

function showHistory() {
  byId("history").replaceChildren(...seen.map((item) =>
    make("li", { class: unknown.has(item) ? "chip unknown" : "chip", title: unknown.has(item) ? "Unknown to the recommender" : "" },
      make("span", {}, item),
      make("button", { type: "button", "aria-label": `Remove ${item}`, onclick: () => removeFromHistory(item) }, "×"))));
}

async function recommend() {
  const isHistory = mode() === "history";
  const user = byId("user").value.trim();
  byId("history-form").hidden = !isHistory;
  byId("user-form").hidden = isHistory;
  showHistory();
  const number = ++asked.recommend;
  if (!isHistory && !user) return showItems(null, "");
  try {
    const whom = isHistory ? { history: seen } : { user };
    const answer = await ask(path("recommend"), { ...whom, k: SHOWN, include_seen: byId("include-seen").checked });
    if (number !== asked.recommend) return;
    unknown = new Set(answer.unknown);
    showHistory();
    showItems(answer, sourceSentence(answer, isHistory, user));
  } catch (error) {
    if (number === asked.recommend) showItems(null, error.message, true);
  }
}

/** What the answer rests on, in words; popularity is never passed off as personal. */
function sourceSentence({ source, unknown: strangers }, isHistory, user) {
  if (source === "user") return `From what ${user} has done so far.`;
  if (source === "history") {
    const known = count(seen.length - strangers.length, "item");
    return `From the history of ${known}.` + (strangers.length ? ` Unknown, and left out: ${strangers.join(", ")}.` : "");
  }
  if (!isHistory) return `Nothing is known about ${user}, so these are simply the most popular items.`;
  if (!seen.length) return "The history is empty, so these are simply the most popular items. Add some with +, or by id.";
  return "Nothing in this history is known, so these are simply the most popular items.";
}

function showItems(answer, sentence, isBad = false) {
  const source = byId("source");
  source.textContent = sentence;
  source.hidden = !sentence;
  source.className = `source ${isBad ? "bad" : (answer?.source ?? "")}`;
  const items = answer?.items ?? [];
  const scores = items.map((item) => item.score);
  const isCount = answer?.source === "popularity"; // then a score is a number of users
  const lowest = Math.min(0, ...scores);
  const span = Math.max(...scores) - lowest;
  byId("items").replaceChildren(...items.map(({ id, score, title, because }, place) => {
    const row = make("li", { class: "item", tabIndex: -1, "aria-label": id },
      make("span", { class: "rank" }, String(place + 1)),
      bar("div", title && title !== id ? `${title} (${id})` : id, isCount ? score.toLocaleString("en") : weight(score), (score - lowest) / span, isCount ? "Users" : "Score"));
    if (!seen.includes(id) && mode() === "history") {
      row.append(make("button", { type: "button", title: "Add to the history", "aria-label": `Add ${id} to the history`, onclick: () => addToHistory(id) }, "+"));
    }
    row.append(make("button", { type: "button", title: "Items like this one", "aria-label": `Items like ${id}`, onclick: () => showSimilar(id) }, "≈"));
    const reasons = Object.keys(because?.items ?? {});
    if (reasons.length) row.append(make("p", { class: "because" }, `because of ${reasons.join(", ")}`));
    return row;
  }));
}

async function showSimilar(item) {
  const number = ++asked.recommend;
  try {
    const answer = await ask(path("similar"), { item, k: SHOWN });
    if (number === asked.recommend) showItems({ ...answer, source: "similar" }, `Like ${item}, the most similar first.`);
  } catch (error) {
    if (number === asked.recommend) showItems(null, error.message, true);
  }
}

// -- tabs and keys -----------------------------------------------------------------------------------

const tabs = ["search", "recommend"];

function openTab(name) {
  for (const tab of tabs) {
    const isOpen = tab === name;
    byId(`panel-${tab}`).hidden = !isOpen;
    byId(`tab-${tab}`).setAttribute("aria-selected", String(isOpen));
    byId(`tab-${tab}`).tabIndex = isOpen ? 0 : -1;
  }
  if (name === "recommend") recommend();
  if (location.hash !== `#${name}`) window.history.replaceState(null, "", `#${name}`);
}

const openPanel = () => document.querySelector("main:not([hidden])");
const mainInput = () => [...openPanel().querySelectorAll(".field input")].find((input) => input.offsetParent);

function moveThroughResults(step) {
  const results = [...openPanel().querySelectorAll(".hit, .item")];
  if (!results.length) return;
  const at = results.indexOf(document.activeElement?.closest(".hit, .item"));
  if (at + step < 0) return mainInput()?.focus();
  results[Math.min(at + step, results.length - 1)].focus();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isTyping = event.target.matches("input:not([type=radio], [type=checkbox])");
  if ((event.key === "/" && !isTyping) || event.key === "Escape") {
    mainInput()?.focus();
    mainInput()?.select();
  } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && !event.target.matches("select, [type=radio]")) {
    if (isTyping && event.key === "ArrowUp") return;
    moveThroughResults(event.key === "ArrowDown" ? 1 : -1);
  } else {
    return;
  }
  event.preventDefault();
}

function onTabKey(event) {
  if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
  const shown = tabs.filter((tab) => !byId(`tab-${tab}`).hidden);
  const next = shown.find((tab) => byId(`tab-${tab}`) !== event.target) ?? shown[0];
  openTab(next);
  byId(`tab-${next}`).focus();
}

// -- start -------------------------------------------------------------------------------------------

/** The collection that the address names, or the first one; a list to choose from, if there are several. */
async function chosen() {
  const { collections } = await ask("collections");
  const wanted = new URLSearchParams(location.search).get("c");
  const found = collections.find(({ name }) => name === wanted) ?? collections.find(({ name }) => name === "default") ?? collections[0];
  if (!found) throw new Error("There are no collections yet.");
  collection = found.name;
  const select = byId("collection");
  select.replaceChildren(...collections.map(({ name }) => make("option", { value: name }, name)));
  select.value = collection;
  select.parentElement.hidden = collections.length < 2;
  select.onchange = () => { location.search = new URLSearchParams({ c: select.value }).toString(); };
  return found;
}

/** Wait until the service is ready, then show what it offers. */
async function connect() {
  let health;
  for (;;) {
    try {
      await ask("readyz");
      health = await chosen();
      break;
    } catch (error) {
      byId("service").textContent = error.message;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
  const offers = { search: health.search, recommend: health.recommend };
  for (const tab of tabs) byId(`tab-${tab}`).hidden = !offers[tab];
  const parts = [];
  if (health.search) parts.push(count(health.search.n_documents, "document"), health.search.encoder);
  if (health.recommend) parts.push(count(health.recommend.n_users, "user"), count(health.recommend.n_items, "item"));
  byId("service").textContent = parts.join(" · ");
  if (health.search) showFilters((await ask(path("facets"))).facets);
  const wanted = location.hash.slice(1);
  openTab(offers[wanted] ? wanted : tabs.find((tab) => offers[tab]));
  const query = new URLSearchParams(location.search).get("q");
  if (health.search && query) {
    byId("query").value = query;
    search();
  }
}

function listen() {
  document.addEventListener("keydown", onKey);
  for (const tab of tabs) byId(`tab-${tab}`).addEventListener("click", () => openTab(tab));
  document.querySelector(".tabs").addEventListener("keydown", onTabKey);
  const forms = {
    "search-form": search,
    "user-form": recommend,
    "history-form": () => {
      const items = byId("item").value.split(",").map((item) => item.trim()).filter(Boolean);
      byId("item").value = "";
      items.forEach((item) => seen.includes(item) || seen.push(item));
      recommend();
    },
  };
  for (const [id, submit] of Object.entries(forms)) {
    byId(id).addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  }
  byId("query").addEventListener("search", () => byId("query").value || search()); // the field's own "clear" button
  byId("item").addEventListener("keydown", (event) => {
    if (event.key === "Backspace" && !event.target.value && seen.length) removeFromHistory(seen.at(-1));
  });
  for (const input of document.querySelectorAll("input[name=mode], #include-seen")) input.addEventListener("change", recommend);
  if (matchMedia("(max-width: 52rem)").matches) document.querySelector("#expansion details").open = false;
}

listen();
connect();
