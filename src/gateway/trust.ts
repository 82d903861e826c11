/** How far a user is trusted: multipliers of the user's limits. */
export interface Trust {
  /** The step's name; "" if there are none. */
  readonly step: string;
  /** Of rates by user and by key; above 0, 1 is neutral. */
  readonly rate: number;
  /** Of the user's parallel requests; above 0, 1 is neutral. */
  readonly parallel: number;
}

export const neutralTrust: Trust = { step: "", rate: 1, parallel: 1 };
