import { inline } from "../lib/facts.ts";
import type { Facts } from "../lib/types.ts";

/** Facts as they came: names and values. */
export function FactList({ facts }: { readonly facts: Facts }) {
  return (
    <dl class="facts">
      {Object.entries(facts).map(([name, value]) => [
        <dt key={`${name}-name`}>{name}</dt>,
        <dd key={`${name}-value`}>{inline(value)}</dd>,
      ])}
    </dl>
  );
}
