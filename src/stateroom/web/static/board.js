"use strict";
// Times in the reader's zone, the live feed, and bulk actions that go on by themselves. Nothing here is needed to read.
(function () {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  const form = new Intl.DateTimeFormat(undefined, {
    year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
    timeZoneName: "short",
  });

  function show(time) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) {
      time.title = time.dateTime;
      time.textContent = form.format(at);
    }
  }

  document.querySelectorAll("time").forEach(show);
  const label = document.getElementById("zone");
  if (label) label.textContent = "Times are in " + zone;

  const live = document.getElementById("live-section");
  if (live && window.EventSource) {
    live.hidden = false;
    const rows = document.getElementById("live-rows");
    const state = document.getElementById("live-state");
    const pause = document.getElementById("pause");
    const waiting = [];
    let paused = false;
    let number = 0;

    function cell(row, child) {
      const td = document.createElement("td");
      td.append(child === null || child === undefined ? "" : child);
      row.append(td);
    }

    function add(change) {
      const row = document.createElement("tr");
      const time = document.createElement("time");
      time.dateTime = change.at;
      show(time);
      cell(row, time);
      cell(row, change.op);
      cell(row, change.family);
      const pages = ["instances", "executions", "machines", "results", "savepoints"];
      const key = change.key.map(String);
      if (pages.includes(change.family) && change.op !== "delete") {
        const link = document.createElement("a");
        const query = new URLSearchParams(location.search).get("namespace");
        link.href = live.dataset.base + "/" + change.family + "/" + key.map(encodeURIComponent).join("/") +
          (query === null ? "" : "?namespace=" + encodeURIComponent(query));
        link.textContent = key.join(" / ");
        cell(row, link);
      } else {
        cell(row, key.join(" / "));
      }
      const record = change.record || {};
      const words = record.status || record.state;
      cell(row, typeof words === "string" ? words : "");
      rows.prepend(row);
      while (rows.childElementCount > 200) rows.lastElementChild.remove();
    }

    function say() {
      state.textContent = paused ? "paused, " + waiting.length + " waiting" : "live, " + number + " changes";
    }

    const source = new EventSource(live.dataset.stream);
    source.addEventListener("open", say);
    source.addEventListener("error", function (event) {
      if (event.data === undefined) state.textContent = "connecting again";
    });
    source.addEventListener("change", function (event) {
      const change = JSON.parse(event.data);
      number += 1;
      if (paused) {
        waiting.push(change);
        if (waiting.length > 200) waiting.shift();
      } else {
        add(change);
      }
      say();
    });
    pause.addEventListener("click", function () {
      paused = !paused;
      pause.setAttribute("aria-pressed", String(paused));
      pause.textContent = paused ? "Go on" : "Pause";
      if (!paused) waiting.splice(0).forEach(add);
      say();
    });
  }

  const next = document.querySelector("form[data-continue]");
  if (next) {
    const timer = setTimeout(function () { next.submit(); }, 400);
    document.getElementById("stop").addEventListener("click", function () { clearTimeout(timer); });
  }
})();
