/* Sets the pinned theme before the first paint. Shares its key with Django admin. */
(function () {
  "use strict";
  var pinned = null;
  try { pinned = localStorage.getItem("theme"); } catch (refused) { pinned = null; }
  if (pinned === "light" || pinned === "dark") {
    document.documentElement.dataset.theme = pinned;
  }
})();
