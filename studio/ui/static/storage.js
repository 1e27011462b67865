// Text kept in the browser. Private windows may refuse it, which is no error.

/**
 * @param {string} key
 * @returns {string | null}
 */
export function readStored(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

/**
 * @param {string} key
 * @param {string} text
 */
export function writeStored(key, text) {
  try {
    localStorage.setItem(key, text);
  } catch {
    // storage is full or forbidden
  }
}
