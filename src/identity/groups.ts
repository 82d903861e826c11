import type { GroupRate, LimitConfig } from "../config/schema.ts";

/** Users who share limits. Replaced, never mutated: a request keeps the one that it began with. */
export interface Group {
  readonly name: string;
  readonly description: string;
  /** Users who see its usage; they need not be members. */
  readonly owners: readonly string[];
  /** Users, those of groups among its members included; sorted. */
  readonly members: readonly string[];
  /** Shared limits of the quota, in addition to those of each member. */
  readonly limits: readonly LimitConfig[];
  /** Shared rates. */
  readonly rates: readonly GroupRate[];
  /** null: all models. */
  readonly models: readonly string[] | null;
  /** Requests of all members at once; null: no limit. */
  readonly maxParallel: number | null;
  readonly origin: "config" | "admin";
  has(user: string): boolean;
  /** @param model the name that the client sends */
  allowsModel(model: string): boolean;
}
