// Typed look-ups in the page. `root` is the document unless a part of the page is given.

/** @typedef {Document | Element} Root */

/**
 * The first element that matches, or null.
 * @param {string} selector
 * @param {Root} [root]
 * @returns {HTMLElement}
 */
export const find = (selector, root = document) => root.querySelector(selector);

/**
 * Every element that matches, in the order of the page.
 * @param {string} selector
 * @param {Root} [root]
 * @returns {HTMLElement[]}
 */
export const findAll = (selector, root = document) =>
  [...root.querySelectorAll(selector)].map((element) => /** @type {HTMLElement} */ (element));

/**
 * The first button that matches, or null.
 * @param {string} selector
 * @param {Root} [root]
 * @returns {HTMLButtonElement}
 */
export const findButton = (selector, root = document) => root.querySelector(selector);

/**
 * The first input that matches, or null.
 * @param {string} selector
 * @param {Root} [root]
 * @returns {HTMLInputElement}
 */
export const findInput = (selector, root = document) => root.querySelector(selector);

/**
 * The first image that matches, or null.
 * @param {string} selector
 * @param {Root} [root]
 * @returns {HTMLImageElement}
 */
export const findImage = (selector, root = document) => root.querySelector(selector);

/**
 * The first canvas that matches, or null.
 * @param {string} selector
 * @param {Root} [root]
 * @returns {HTMLCanvasElement}
 */
export const findCanvas = (selector, root = document) => root.querySelector(selector);

/**
 * The first match that is visible: every tab has its own, and one tab is shown.
 * @param {string} selector
 * @returns {HTMLElement | undefined}
 */
export const findVisible = (selector) => findAll(selector).find((element) => element.checkVisibility());

/**
 * The nearest element around an event's target that matches, or null.
 * @param {Event} event
 * @param {string} selector
 * @returns {HTMLElement}
 */
export const closest = (event, selector) => (event.target instanceof Element ? event.target.closest(selector) : null);

/**
 * Whether an event's target matches a selector.
 * @param {Event} event
 * @param {string} selector
 */
export const targetMatches = (event, selector) => event.target instanceof Element && event.target.matches(selector);

/** Whether the visitor asks for little motion. */
export const prefersReducedMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/**
 * How to scroll: smoothly, unless the visitor asks for little motion.
 * @returns {ScrollBehavior}
 */
export const scrollBehavior = () => (prefersReducedMotion() ? "auto" : "smooth");
