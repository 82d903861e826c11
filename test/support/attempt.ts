import { AppError } from "../../src/errors.ts";

/** A call as a promise, whether it answers at once, throws or rejects. */
export async function attempt<T>(call: () => T | Promise<T>): Promise<T> {
  return call();
}

/** The error with which a call is refused. */
export async function refusalOf(call: () => unknown): Promise<AppError> {
  try {
    await call();
  } catch (error) {
    if (error instanceof AppError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}
