import { AppError } from "../../errors.ts";
import { AccountTextError } from "./account-text.ts";

/** Runs what depends on the caller's values; what is wrong with them is the caller's to hear. */
export function orInvalid<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof AccountTextError)) throw error;
    throw new AppError("invalid_request", { message: error.message, param: error.param });
  }
}

/** What a failed write is to the caller. */
export function notSaved(error: unknown): never {
  throw new AppError("storage_unavailable", { message: "The account could not be saved.", cause: error });
}
