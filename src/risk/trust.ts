/** How far a user is trusted: factors of the user's limits, each above 0. */
export interface Trust {
  /** The step's name; "" if there are no steps. */
  readonly step: string;
  /** Of rates by user and by key. */
  readonly rate: number;
  /** Of the user's parallel requests. */
  readonly parallel: number;
  /** Of the user's own quota limits. */
  readonly quota: number;
}

/** Where there are no steps. */
export const neutralTrust: Trust = { step: "", rate: 1, parallel: 1, quota: 1 };
