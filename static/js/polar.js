/* Polar's own script: theme switch, keys, streamed answers, "last heard".
   Everything works without it; nothing here writes HTML from data. */
(function () {
  "use strict";

  /* ---- theme --------------------------------------------------------------- */
  function nextTheme(current) {
    return current === "dark" ? "light" : current === "light" ? "auto" : "dark";
  }
  function showTheme(button) {
    var name = document.documentElement.dataset.theme || "auto";
    button.setAttribute("aria-label", "Theme: " + name + ". Change");
    button.title = "Theme: " + name;
  }
  document.querySelectorAll("[data-theme-switch]").forEach(function (button) {
    button.hidden = false;
    showTheme(button);
    button.addEventListener("click", function () {
      var next = nextTheme(document.documentElement.dataset.theme);
      document.documentElement.dataset.theme = next;
      try { localStorage.setItem("theme", next); } catch (refused) { /* this page only */ }
      showTheme(button);
    });
  });

  /* ---- keys ---------------------------------------------------------------- */
  function isTyping(node) {
    return node && (node.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(node.tagName));
  }
  document.addEventListener("keydown", function (event) {
    var plain = event.key === "/" && !event.ctrlKey && !event.metaKey && !isTyping(event.target);
    var chord = event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey);
    if (plain || chord) {
      var box = document.getElementById("q");
      if (box) { event.preventDefault(); box.focus(); box.select(); }
    }
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      var form = event.target.closest && event.target.closest("form[data-ctrl-enter]");
      if (form) { event.preventDefault(); form.requestSubmit(); }
    }
  });

  /* ---- search: the box is the palette ------------------------------------------ */
  document.querySelectorAll("[data-palette]").forEach(function (palette) {
    var box = palette.querySelector("input");
    var list = palette.querySelector(".hits");
    var chosen = -1;
    function options() { return list.querySelectorAll("[role=option]"); }
    function show(open) {
      list.hidden = !open;
      box.setAttribute("aria-expanded", String(open));
      if (!open) { choose(-1); }
    }
    function choose(index) {
      var all = options();
      chosen = all.length ? Math.max(-1, Math.min(index, all.length - 1)) : -1;
      all.forEach(function (option, place) {
        option.id = "hit-" + place;
        option.setAttribute("aria-selected", String(place === chosen));
      });
      if (chosen < 0) { box.removeAttribute("aria-activedescendant"); return; }
      box.setAttribute("aria-activedescendant", "hit-" + chosen);
      all[chosen].scrollIntoView({ block: "nearest" });
    }
    list.addEventListener("htmx:afterSwap", function () {
      show(document.activeElement === box);
      choose(-1);
    });
    box.addEventListener("keydown", function (event) {
      if (event.key === "ArrowDown") { event.preventDefault(); show(true); choose(chosen + 1); }
      if (event.key === "ArrowUp") { event.preventDefault(); choose(chosen - 1); }
      if (event.key === "Escape") { show(false); }
      if (event.key === "Enter" && chosen >= 0) {
        event.preventDefault();
        options()[chosen].querySelector("a").click();
      }
    });
    palette.addEventListener("focusout", function (event) {
      if (!palette.contains(event.relatedTarget)) { show(false); }
    });
    list.addEventListener("mousedown", function (event) { event.preventDefault(); });
  });

  /* ---- last heard ---------------------------------------------------------- */
  var LOST_AFTER = 25000;
  var heardAt = Date.now();
  function sayHeard() {
    var header = document.querySelector(".header");
    var line = header && header.querySelector(".heard");
    if (!line) { return; }
    var age = Date.now() - heardAt;
    var lost = age > LOST_AFTER;
    var seconds = Math.round(age / 1000);
    line.textContent = (lost ? "Feed lost, last heard " : "heard ") + seconds + " s ago";
    header.classList.toggle("is-lost", lost);
  }
  document.addEventListener("htmx:afterRequest", function (event) {
    if (event.detail.successful) { heardAt = Date.now(); sayHeard(); }
  });
  setInterval(sayHeard, 1000);
  /* What expires counts down; the server's own words stay for those without script. */
  function countDown() {
    document.querySelectorAll("time[data-countdown]").forEach(function (node) {
      var left = Math.floor((Date.parse(node.dateTime) - Date.now()) / 1000);
      if (isNaN(left)) { return; }
      var hours = Math.floor(left / 3600), minutes = Math.floor(left / 60) % 60;
      var seconds = ("0" + (left % 60)).slice(-2);
      node.textContent = left <= 0 ? "now" :
        hours ? "in " + hours + " h " + minutes + " min" : "in " + minutes + ":" + seconds;
    });
  }
  setInterval(countDown, 1000);
  countDown();

  /* ---- a region that refreshes itself does not take a person's work away --------- */
  var pressed = null;
  var unfolded = {};
  document.addEventListener("pointerdown", function (event) { pressed = event.target; });
  ["pointerup", "pointercancel"].forEach(function (name) {
    document.addEventListener(name, function () {
      setTimeout(function () { pressed = null; }, 0); /* the click comes first */
    });
  });
  function isChanged(field) {
    if (field.type === "hidden") { return false; }
    if (field.type === "checkbox" || field.type === "radio") {
      return field.checked !== field.defaultChecked;
    }
    if (field.tagName !== "SELECT") { return field.value !== field.defaultValue; }
    var standing = field.querySelector("option[selected]") || field.options[0];
    return document.activeElement === field || Boolean(standing && !standing.selected);
  }
  function isWritten(region) {
    return Array.prototype.some.call(region.querySelectorAll("input, textarea, select"), isChanged);
  }
  function isInUse(region) {
    return (pressed && region.contains(pressed)) || region.querySelector(".htmx-request") ||
      isWritten(region);
  }
  function nameOf(fold) {
    var around = fold.closest("[id]"), summary = fold.querySelector("summary");
    return (around ? around.id : "") + " " + (summary ? summary.textContent : "");
  }
  document.addEventListener("htmx:beforeSwap", function (event) {
    var region = event.detail.target;
    var polls = /every/.test(event.detail.elt.getAttribute("hx-trigger") || "");
    if (!polls || region !== event.detail.elt) { return; }
    if (isInUse(region)) {
      event.detail.shouldSwap = false; /* nothing is lost: the next look brings it */
      region.toggleAttribute("data-held", isWritten(region));
      return;
    }
    region.removeAttribute("data-held");
    unfolded = {};
    region.querySelectorAll("details").forEach(function (fold) { unfolded[nameOf(fold)] = fold.open; });
  });
  document.addEventListener("htmx:afterSwap", function () {
    document.querySelectorAll("details").forEach(function (fold) {
      var name = nameOf(fold);
      if (name in unfolded) { fold.open = unfolded[name]; }
    });
    unfolded = {};
  });

  /* The header's ground is the state of the system, also after a swap. */
  function tint() {
    var status = document.getElementById("annunciator");
    var header = document.getElementById("bar");
    if (!status || !header) { return; }
    ["ok", "attention", "critical", "doubt"].forEach(function (tone) {
      header.classList.toggle("is-" + tone, status.dataset.tone === tone);
    });
  }

  /* ---- chat ---------------------------------------------------------------- */
  function nearEnd() {
    return window.innerHeight + window.scrollY > document.body.scrollHeight - 160;
  }
  function toEnd() { window.scrollTo(0, document.body.scrollHeight); }

  function listen(node) {
    if (node.dataset.listening || !window.EventSource) { return; }
    node.dataset.listening = "yes";
    var text = node.querySelector("[data-stream-text]");
    var state = node.querySelector("[data-stream-state]");
    var working = node.querySelector("[data-working]");
    var source = new EventSource(node.dataset.stream);
    source.addEventListener("delta", function (event) {
      var follow = nearEnd();
      heardAt = Date.now();
      text.textContent += JSON.parse(event.data).text;
      if (follow) { toEnd(); }
    });
    source.addEventListener("reset", function () { text.textContent = ""; });
    source.addEventListener("state", function (event) {
      heardAt = Date.now();
      var label = JSON.parse(event.data).label;
      if (state) { state.textContent = label; }
      if (working) { working.hidden = label.indexOf("waiting") === 0; }
    });
    source.addEventListener("done", function () {
      source.close();
      window.htmx.ajax("GET", node.dataset.answer, { target: node, swap: "outerHTML" });
    });
    source.addEventListener("error", function () {
      if (source.readyState === EventSource.CLOSED && state) {
        state.textContent = "Connection lost. Reload the page to see the answer.";
      }
    });
  }
  function prepare(root) {
    root.querySelectorAll("[data-stream]").forEach(listen);
    if (root.matches && root.matches("[data-stream]")) { listen(root); }
  }
  document.addEventListener("htmx:afterSwap", function (event) {
    prepare(event.detail.elt);
    countDown();
    tint();
    if (event.detail.target && event.detail.target.matches("[data-follow]")) { toEnd(); }
  });
  /* What was sent is cleared; what was typed since stays. */
  function textOf(form) { return form.querySelector("textarea, input[type=text]"); }
  document.addEventListener("htmx:beforeRequest", function (event) {
    var form = event.detail.elt;
    if (form.matches && form.matches("form[data-clear]") && textOf(form)) {
      event.detail.xhr.polarSent = textOf(form).value;
    }
  });
  document.addEventListener("htmx:afterRequest", function (event) {
    var form = event.detail.elt;
    var kept = event.detail.xhr.getResponseHeader("X-Polar-Kept");
    if (event.detail.successful && !kept && form.matches && form.matches("form[data-clear]")) {
      var field = textOf(form), sent = event.detail.xhr.polarSent, now = field ? field.value : "";
      form.reset();
      if (field && sent !== undefined && now !== sent) {
        field.value = now.indexOf(sent) === 0 ? now.slice(sent.length).replace(/^\s+/, "") : now;
      }
    }
  });
  prepare(document);
  if (document.querySelector("[data-follow]")) { toEnd(); }
})();
