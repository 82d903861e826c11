import fc from "fast-check";

/**
 * Property tests draw the same cases in every run, so that a red run is red again when it is repeated.
 * `PROPERTY_SEED=random` (or a number) looks for new ones: `PROPERTY_SEED=random npm run test:fast`.
 */
const asked = process.env.PROPERTY_SEED ?? "20261126";
if (asked !== "random") fc.configureGlobal({ ...fc.readConfigureGlobal(), seed: Number(asked) });

export { fc };
