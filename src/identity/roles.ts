/** `user` may chat, `auditor` reads the administration, `admin` changes it. */
export const roles = ["user", "auditor", "admin"] as const;

/** A user's role. */
export type Role = (typeof roles)[number];
