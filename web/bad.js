/** An answer of the server that does not have the expected form. */
export class BadAnswer extends Error {}
