/* Moving cards: by drag, by keyboard (M, then 1 to 4; arrows walk), by a button.
   Every way ends in one POST that carries the version that was seen; the answer is
   the region of cards as it stands, also when the move was refused.
   Without this script a card is moved on its own page. */
(function () {
  "use strict";
  var REGION = "board-live";
  var dragged = null;
  var chosen = null;
  var focusAfter = null;
  var mover = document.getElementById("mover");

  function region() { return document.getElementById(REGION); }
  function cardOf(node) { return node && node.closest ? node.closest("[data-card]") : null; }
  function byId(id) { return document.getElementById("card-" + id); }
  function say(text) { document.getElementById("board-said").textContent = text; }
  function canMove(card) { return Boolean(card && card.querySelector("[data-mover]")); }

  function showMovers() {
    document.querySelectorAll("[data-mover]").forEach(function (button) { button.hidden = false; });
  }

  /* ---- the one way to move ----------------------------------------------------- */
  function move(card, status) {
    var column = card.closest("[data-status]");
    if (column && column.dataset.status === status && !card.hasAttribute("data-marked")) {
      say("“" + card.dataset.title + "” stands there already.");
      return;
    }
    focusAfter = card.dataset.id;
    /* A look at the board that is under way would swap the region away and take a
       move that waits behind it along: the move goes first and in its own name. */
    window.htmx.trigger(region(), "htmx:abort");
    window.htmx.ajax("POST", card.dataset.move, {
      source: mover,
      target: "#" + REGION,
      swap: "outerHTML",
      values: { status: status, expected_version: card.dataset.version }
    });
  }

  /* A refusal is an answer too: it brings the cards as they stand, and why. */
  document.addEventListener("htmx:beforeSwap", function (event) {
    var status = event.detail.xhr.status;
    var here = event.detail.target && event.detail.target.id === REGION;
    if (here && (status === 403 || status === 409 || status === 422)) {
      var text = event.detail.serverResponse || "";
      event.detail.shouldSwap = text.indexOf('id="' + REGION + '"') !== -1;
      event.detail.isError = false;
      if (!event.detail.shouldSwap) { say("Not moved: Polar refused it. Reload the page."); }
    }
  });
  ["htmx:sendError", "htmx:timeout", "htmx:responseError"].forEach(function (name) {
    document.addEventListener(name, function () {
      if (focusAfter === null) { return; }
      focusAfter = null;
      say("Not moved: Polar did not answer. The card stands where it was; try again.");
    });
  });
  document.addEventListener("htmx:beforeRequest", function (event) {
    /* A card in the hand, or on its way, is not swapped away. */
    var held = dragged || focusAfter !== null;
    if (held && event.detail.elt.id === REGION) { event.preventDefault(); }
  });
  document.addEventListener("htmx:afterSettle", function () {
    showMovers();
    if (focusAfter === null) { return; }
    var link = document.getElementById("task-" + focusAfter);
    focusAfter = null;
    if (link) { link.focus(); }
  });

  /* ---- drag -------------------------------------------------------------------- */
  function untarget() {
    document.querySelectorAll(".column.is-target").forEach(function (column) {
      column.classList.remove("is-target");
    });
  }
  document.addEventListener("dragstart", function (event) {
    var card = cardOf(event.target);
    if (!card || card.getAttribute("draggable") !== "true") { return; }
    dragged = card;
    card.classList.add("is-lifted");
    event.dataTransfer.effectAllowed = "move";
    event.dataTransfer.setData("text/plain", card.dataset.title);
  });
  document.addEventListener("dragover", function (event) {
    var column = dragged && event.target.closest && event.target.closest(".column");
    if (!column) { return; }
    event.preventDefault();
    if (!column.classList.contains("is-target")) { untarget(); column.classList.add("is-target"); }
  });
  document.addEventListener("drop", function (event) {
    var column = dragged && event.target.closest && event.target.closest(".column");
    if (!column) { return; }
    event.preventDefault();
    var card = dragged;
    dragged = null;
    untarget();
    if (column !== card.closest(".column")) { move(card, column.dataset.status); }
  });
  document.addEventListener("dragend", function () {
    document.querySelectorAll(".card.is-lifted").forEach(function (card) {
      card.classList.remove("is-lifted");
    });
    dragged = null;
    untarget();
  });

  /* ---- keyboard and button ------------------------------------------------------- */
  function open(card) {
    if (!mover || !canMove(card)) { return; }
    chosen = card;
    document.getElementById("mover-task").textContent = card.dataset.title;
    var marked = card.hasAttribute("data-marked");
    var here = card.closest("[data-status]").dataset.status;
    mover.querySelectorAll("[data-to]").forEach(function (button) {
      var to = button.dataset.to;
      button.disabled = marked ? to !== "todo" : to === here || (here === "done" && to !== "todo");
    });
    mover.showModal();
    var first = mover.querySelector("[data-to]:not([disabled])");
    if (first) { first.focus(); }
  }
  function choose(button) {
    if (!chosen || button.disabled) { return; }
    var card = byId(chosen.dataset.id);
    var version = chosen.dataset.version;
    chosen = null;
    mover.close();
    if (!card) { say("Not moved: the card is no longer on this page."); return; }
    /* The version that was on the card when the person decided, not a newer one. */
    card.dataset.version = version;
    move(card, button.dataset.to);
  }
  function walk(card, key) {
    var column = card.closest(".column");
    var cards = Array.prototype.slice.call(column.querySelectorAll("[data-card]"));
    var place = cards.indexOf(card);
    if (key === "ArrowUp" || key === "ArrowDown") {
      var near = cards[place + (key === "ArrowDown" ? 1 : -1)];
      return near && near.querySelector("h3 a");
    }
    var columns = Array.prototype.slice.call(document.querySelectorAll(".column"));
    var step = key === "ArrowRight" ? 1 : -1;
    for (var at = columns.indexOf(column) + step; columns[at]; at += step) {
      var there = columns[at].querySelectorAll("[data-card]");
      if (there.length) { return there[Math.min(place, there.length - 1)].querySelector("h3 a"); }
    }
    return null;
  }
  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey) { return; }
    if (mover && mover.open) {
      var button = mover.querySelectorAll("[data-to]")[Number(event.key) - 1];
      if (button && /^[1-4]$/.test(event.key)) { event.preventDefault(); choose(button); }
      return;
    }
    var card = cardOf(event.target);
    if (!card) { return; }
    if (event.key === "m" || event.key === "M") { event.preventDefault(); open(card); }
    if (/^Arrow/.test(event.key)) {
      var link = walk(card, event.key);
      if (link) { event.preventDefault(); link.focus(); }
    }
  });
  document.addEventListener("click", function (event) {
    var target = event.target.closest ? event.target.closest("[data-mover], [data-to], [data-close]") : null;
    if (!target) { return; }
    if (target.hasAttribute("data-mover")) { open(cardOf(target)); }
    if (target.hasAttribute("data-to")) { choose(target); }
    if (target.hasAttribute("data-close")) { chosen = null; mover.close(); }
  });
  showMovers();
})();
