// The words of the page, for who meets one for the first time.

import { pair } from "./element.js";

const WORDS = [
  ["operation", "One read or one write of a key. Rates are operations a second (ops/s)."],
  ["row, range", "Neighbouring keys that are counted together. Hot ranges get rows of their own."],
  ["column", "A piece of time. The last one is in progress until it is over."],
  ["share", "The part of all operations that are shown."],
  ["route", "A range of keys that one group stores. It can be split, merged and moved."],
  ["group", "Some nodes that store the same routes. One of them leads: it takes the writes."],
  ["leader", "The node of a group that orders its writes, and answers most reads."],
  ["hot", "Far more load than the rest has. Each finding says by which numbers."],
  ["cold ranges", "Neighbouring rows with hardly any load, folded into one band."],
  ["grey cells", "Counted together with other keys or columns: where inside is not known."],
  ["hatched cells", "A node is missing, a count was spread, or two nodes claim the same."],
  ["finding", "What stands out in the window, since when, and what would help."],
  ["remedy", "An act and what it would change, replayed on the last columns."],
  ["split, merge", "A route becomes two; two neighbours become one."],
  ["move", "Keys or a route go to another group, and so to other nodes."],
  ["bounds", "An operation count of a key lies between both numbers; one number is exact."],
];

export function fillWords(list) {
  list.replaceChildren(...WORDS.flatMap(([word, meaning]) => pair(word, meaning)));
}
