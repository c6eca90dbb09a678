/** An answer of the server that is not what it should be. */
export class BadAnswer extends Error {}
