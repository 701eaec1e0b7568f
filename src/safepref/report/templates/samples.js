// The browser of samples: filters over rows of numbers, and cards that are built for one page at a time.
const PAGE = 20;
const LONG = 480;
const S = DATA.samples;
const [POINT, SUITE, PROMPT, RESPONSE, OUTCOME, SCORE, SECOND, SECOND_SCORE, FLAGS, NOTE] = Array(10).keys();
const [TEXT, BEFORE, CATEGORY, ATTACK] = Array(4).keys();
const [TRUNCATED, DEGENERATE, CUT] = [1, 2, 4];
let showSamples = () => {};

const titles = new Map((DATA.heat?.categories ?? []).map((c) => [c.id, c.title]));
const categoryTitle = (number) => {
  const id = S.categories[number];
  return id === undefined ? null : titles.get(id) ?? id.replaceAll("_", " ");
};

function startBrowser() {
  const controls = { point: $("f-point"), suite: $("f-suite"), attack: $("f-attack"), category: $("f-category"),
    outcome: $("f-outcome") };
  let page = 0;
  let only = null; // one prompt alone, from "all answers to this prompt"
  let several = null; // categories of a heat map row that stands for a group
  let found = [];
  let lowered = null;

  const all = (text) => option("", text);
  controls.point.append(all("all"), ...S.points.map((p, at) => option(at, p.label)));
  controls.suite.append(all("all"), ...S.suites.map((s, at) => option(at, s.title)).filter((_, at) =>
    S.rows.some((row) => row[SUITE] === at)));
  controls.attack.append(all("all"), option(-1, "none (plain)"), ...S.attacks.map((a, at) => option(at, a.title)));
  const byTitle = S.categories.map((_, at) => at).sort((a, b) => categoryTitle(a).localeCompare(categoryTitle(b)));
  controls.category.append(all("all"), ...byTitle.map((at) => option(at, categoryTitle(at))));
  controls.outcome.append(all("all"), ...S.outcomes.map((o, at) => option(at, o)));

  const textOf = (at) => {
    lowered ??= new Array(S.rows.length);
    lowered[at] ??= (S.prompts[S.rows[at][PROMPT]][TEXT] + "\u0000" + S.rows[at][RESPONSE]).toLowerCase();
    return lowered[at];
  };

  function filter() {
    const wanted = Object.fromEntries(Object.entries(controls).map(([name, c]) =>
      [name, c.value === "" ? null : Number(c.value)]));
    const text = $("f-text").value.trim().toLowerCase();
    const disagree = $("f-disagree").checked;
    found = [];
    S.rows.forEach((row, at) => {
      const prompt = S.prompts[row[PROMPT]];
      if (only !== null && row[PROMPT] !== only) return;
      if (several !== null && !several.has(prompt[CATEGORY])) return;
      if (wanted.point !== null && row[POINT] !== wanted.point) return;
      if (wanted.suite !== null && row[SUITE] !== wanted.suite) return;
      if (wanted.attack !== null && prompt[ATTACK] !== wanted.attack) return;
      if (wanted.category !== null && prompt[CATEGORY] !== wanted.category) return;
      if (wanted.outcome !== null && row[OUTCOME] !== wanted.outcome) return;
      if (disagree && (row[SECOND] < 0 || row[SECOND] === row[OUTCOME])) return;
      if (text && !textOf(at).includes(text)) return;
      found.push(at);
    });
    page = 0;
    show();
  }

  function show() {
    const from = page * PAGE;
    const here = found.slice(from, from + PAGE);
    const narrowed = only !== null ? ", one prompt" : several !== null ? ", one group of categories" : "";
    $("count").textContent = found.length
      ? `${(from + 1).toLocaleString("en")}–${(from + here.length).toLocaleString("en")} of ` +
        `${found.length.toLocaleString("en")} samples${narrowed}`
      : `No sample fits${narrowed}.`;
    $("cards").replaceChildren(...here.map(card));
    const last = Math.max(0, Math.ceil(found.length / PAGE) - 1);
    $("previous").disabled = page === 0;
    $("next").disabled = page >= last;
    $("page").textContent = `page ${page + 1} of ${last + 1}`;
  }

  function block(text, kind) {
    const body = make("div", { class: "text" + (text ? "" : " empty") }, text || "(empty)");
    const wrap = make("div", { class: kind }, body);
    if (text.length > LONG || text.split("\n").length > 7) {
      body.classList.add("clip");
      const more = make("button", { type: "button", "aria-expanded": "false", onclick: () => {
        const open = !body.classList.toggle("clip");
        more.textContent = open ? "Show less" : "Show all";
        more.setAttribute("aria-expanded", String(open));
      } }, "Show all");
      wrap.append(more);
    }
    return wrap;
  }

  function card(at) {
    const row = S.rows[at];
    const prompt = S.prompts[row[PROMPT]];
    const outcome = S.outcomes[row[OUTCOME]];
    const badge = (text, kind) => make("span", { class: "badge " + kind.replaceAll(" ", "-") }, text);
    const judged = ["safety", "task"].includes(S.suites[row[SUITE]].id);
    const score = row[SCORE] === null ? "" : ` ${row[SCORE].toFixed(2)}`;
    const second = row[SECOND] < 0 ? null : S.outcomes[row[SECOND]];
    const secondScore = row[SECOND_SCORE] === null ? "" : ` ${row[SECOND_SCORE].toFixed(2)}`;
    const facts = [S.suites[row[SUITE]].title, prompt[ATTACK] >= 0 ? S.attacks[prompt[ATTACK]].title : null,
      categoryTitle(prompt[CATEGORY])].filter(Boolean).join(" · ");
    const meta = make("div", { class: "meta" },
      make("b", {}, S.points[row[POINT]].label),
      badge((judged ? (S.judges[0] ?? "judge") + ": " : "") + outcome + score, outcome),
      second === null ? null : badge(`${S.judges[1]}: ${second}${secondScore}`, second),
      second !== null && second !== outcome ? badge("judges disagree", "warn") : null,
      row[FLAGS] & TRUNCATED ? badge("cut by the token cap", "") : null,
      row[FLAGS] & DEGENERATE ? badge("degenerate", "warn") : null,
      row[FLAGS] & CUT ? badge("only its beginning is shown", "") : null,
      make("span", {}, facts));
    const actions = make("div", {});
    if (only === null) {
      actions.append(make("button", { type: "button", onclick: () => {
        clear();
        only = row[PROMPT];
        filter();
        $("count").scrollIntoView({ block: "center" });
      } }, "All answers to this prompt"));
    }
    return make("article", { class: "sample", "data-outcome": outcome },
      meta,
      prompt[BEFORE] ? make("div", { class: "who" }, "Before the request") : null,
      prompt[BEFORE] ? block(prompt[BEFORE], "before") : null,
      make("div", { class: "who" }, "Request"), block(prompt[TEXT], "request"),
      make("div", { class: "who" }, "Answer"), block(row[RESPONSE], "answer " + outcome),
      row[NOTE] ? make("p", { class: "small soft" }, row[NOTE]) : null,
      actions);
  }

  function clear() {
    Object.values(controls).forEach((c) => { c.value = ""; });
    $("f-text").value = "";
    $("f-disagree").checked = false;
    only = several = null;
  }

  const turn = (by) => {
    page += by;
    show();
    $("count").scrollIntoView({ block: "center" });
  };
  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  $("f-clear").addEventListener("click", () => { clear(); filter(); });
  for (const c of [...Object.values(controls), $("f-disagree")]) c.addEventListener("change", filter);
  let timer = 0;
  $("f-text").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(filter, 150);
  });
  $("show-samples").addEventListener("click", () => {
    $("notice").hidden = true;
    $("browser").hidden = false;
    filter();
    controls.point.focus();
  });
  showSamples = ({ point, categories, attack }) => {
    clear();
    controls.point.value = S.points.findIndex((p) => p.split === "report" && p.name === point);
    controls.suite.value = S.suites.findIndex((s) => s.id === "safety");
    controls.attack.value = attack ? S.attacks.findIndex((a) => a.id === attack) : -1;
    const numbers = categories.map((id) => S.categories.indexOf(id)).filter((number) => number >= 0);
    if (numbers.length === 1) controls.category.value = numbers[0];
    else several = new Set(numbers);
    if (!$("browser").hidden) filter();
    $("samples").scrollIntoView();
  };

  const main = S.suites.findIndex((s) => s.id === (DATA.measure ? "task" : "safety"));
  if (S.rows.some((row) => row[SUITE] === main)) controls.suite.value = main;
  const picked = DATA.heat?.points.find((p) => p.recommended)?.name;
  const start = S.points.findIndex((p) => p.split === "report" && p.name === picked);
  if (start >= 0) controls.point.value = start;
}
if ($("browser")) startBrowser();
