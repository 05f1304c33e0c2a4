// Draws the loss and the pass rate of a training run and keeps them up to date while it goes on. The run is another process;
// its files come from Jupyter's file server. Nothing is sent anywhere else. A chart that left the page for an hour stops.
(() => {
  const hosts = [...document.querySelectorAll(".codelora-live:not([data-on])")];
  const config = document.getElementById("jupyter-config-data");
  if (!config) return; // A page without a Jupyter server: an exported notebook.
  const base = JSON.parse(config.textContent).baseUrl || "/";
  const colors = { batch: "#8fa8c0", train: "#e68c00", validation: "#2f7fc1", passed: "#2f7fc1", parses: "#e68c00", collapsed: "#1a9e73" };

  const rows = async (folder, name) => {
    const answer = await fetch(`${base}files/${folder}/${name}?t=${Date.now()}`, { cache: "no-store" });
    if (!answer.ok) return [];
    // The last line may be half written.
    return (await answer.text()).split("\n").flatMap((line) => { try { return [JSON.parse(line)]; } catch { return []; } });
  };

  const panel = (title, unit, steps, top, series) => {
    const [w, h, l, b] = [410, 250, 46, 34];
    const x = (step) => l + (step / Math.max(steps, 1)) * (w - l - 12);
    const y = (value) => h - b - (Math.min(value, top) / top) * (h - b - 44);
    const ticks = [0, 0.25, 0.5, 0.75, 1];
    const grid = ticks.map((t) => `<line x1="${l}" x2="${w - 12}" y1="${y(t * top)}" y2="${y(t * top)}" stroke="currentColor" opacity=".15"/>
      <text x="${l - 6}" y="${y(t * top) + 4}" text-anchor="end">${+(t * top).toPrecision(2)}</text>
      <text x="${x(t * steps)}" y="${h - b + 16}" text-anchor="middle">${Math.round(t * steps)}</text>`).join("");
    const lines = series.map(([name, color, points, faint]) => {
      const path = points.map(([s, v], i) => `${i ? "L" : "M"}${x(s).toFixed(1)} ${y(v).toFixed(1)}`).join("");
      const marks = faint ? "" : points.map(([s, v]) => `<circle cx="${x(s).toFixed(1)}" cy="${y(v).toFixed(1)}" r="3" fill="${color}"/>`).join("");
      return `<path d="${path}" fill="none" stroke="${color}" stroke-width="${faint ? 1 : 2}"><title>${name}</title></path>${marks}`;
    }).join("");
    let at = l;
    const legend = series.map(([name, color]) => {
      const item = `<rect x="${at}" y="24" width="10" height="10" fill="${color}"/><text x="${at + 15}" y="33">${name}</text>`;
      at += 32 + 6.6 * name.length;
      return item;
    }).join("");
    return `<svg viewBox="0 0 ${w} ${h}" width="${w}" style="max-width:100%;font:12px sans-serif" fill="currentColor">
      <text x="${l}" y="14" font-weight="600">${title} (${unit})</text>${legend}${grid}${lines}
      <text x="${(l + w) / 2}" y="${h - 2}" text-anchor="middle">optimiser step</text></svg>`;
  };

  // How long the steps that are left will take, by the pace since this page first saw the run; evaluations are in it.
  const remaining = (host, step, planned) => {
    const [first, since] = JSON.parse(host.dataset.seen ||= JSON.stringify([step, Date.now()]));
    if (step <= first) return "";
    const seconds = ((planned - step) * (Date.now() - since)) / 1000 / (step - first);
    return seconds < 90 ? ` · about ${Math.ceil(seconds)} s left` : ` · about ${Math.round(seconds / 60)} min left`;
  };

  const draw = async (host) => {
    const { folder, steps } = host.dataset;
    const [metrics, evaluations] = await Promise.all([rows(folder, "metrics.jsonl"), rows(folder, "evaluations.jsonl")]);
    const planned = +steps;
    const last = metrics.length ? metrics[metrics.length - 1] : null;
    const stride = Math.ceil(metrics.length / 600) || 1;
    const batch = metrics.filter((_, i) => i % stride === 0).map((row) => [row.step, row.loss]);
    const loss = (key) => evaluations.map((row) => [row.step, row[key]]);
    const checked = evaluations.filter((row) => row.generated);
    const share = (key) => checked.map((row) => [row.step, 100 * row.generated[key]]);
    const high = Math.max(0.1, ...loss("train_loss").map((p) => p[1]), ...loss("validation_loss").map((p) => p[1]));
    const done = last && last.step >= planned;
    if (last) host.dataset.begun = "1";
    const left = last && !done ? remaining(host, last.step, planned) : "";
    const says = last ? `step ${last.step} of ${planned} · loss ${last.loss.toFixed(3)} nats/token · ${Math.round(last.tokens_per_second)} tokens/s${left}` : "waiting for the first step";
    host.innerHTML = `<p class="codelora-says" data-step="${last ? last.step : 0}"><b>${done ? "finished" : "training"}</b> · ${says}</p>
      <div style="display:flex;flex-wrap:wrap;gap:16px">` +
      panel("loss", "nats/token", planned, 1.6 * high, [["batch", colors.batch, batch, true], ["train subset", colors.train, loss("train_loss")], ["validation", colors.validation, loss("validation_loss")]]) +
      panel("what it writes", "% of completions", planned, 100, [["passes its tests", colors.passed, share("pass_rate")], ["parses", colors.parses, share("syntax_valid_rate")], ["collapsed", colors.collapsed, share("collapse_rate")]]) +
      "</div>";
    return done;
  };

  for (const host of hosts) {
    host.dataset.on = "1";
    let away = 0;
    const tick = async () => {
      // JupyterLab takes cells that are scrolled out of sight off the page, and puts them back.
      away = host.isConnected ? 0 : away + 1;
      const done = host.isConnected && (await draw(host).catch(() => false));
      // Without a first step there is little to see: look less often.
      if (!done && away < 1800) setTimeout(tick, host.dataset.begun ? 2000 : 6000);
    };
    setTimeout(tick, 0);
  }
})();
