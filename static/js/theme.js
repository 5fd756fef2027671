/* Sets the pinned theme before the first paint, and tells the server this browser's
   time zone, in which the next page is written. Shares its key with Django admin. */
(function () {
  "use strict";
  var pinned = null;
  try { pinned = localStorage.getItem("theme"); } catch (refused) { pinned = null; }
  if (pinned === "light" || pinned === "dark") {
    document.documentElement.dataset.theme = pinned;
  }
  var zone = "";
  try { zone = Intl.DateTimeFormat().resolvedOptions().timeZone || ""; } catch (unknown) { zone = ""; }
  var told = "polar_zone=" + zone;
  if (/^[\w+/-]+$/.test(zone) && document.cookie.split("; ").indexOf(told) === -1) {
    var secure = location.protocol === "https:" ? "; secure" : "";
    document.cookie = told + "; path=/; max-age=31536000; samesite=lax" + secure;
  }
})();
