import { fc } from "../support/fast-check.ts";
import { expect, it } from "vitest";
import { SwapRemoveSet, type Slotted } from "../../src/lib/swap-remove-set.ts";

interface Item extends Slotted {
  readonly id: number;
}

it("holds what a Set would hold", () => {
  fc.assert(
    fc.property(fc.array(fc.record({ id: fc.nat(9), put: fc.boolean() }), { maxLength: 60 }), (steps) => {
      const all = Array.from({ length: 10 }, (_, id): Item => ({ id, slot: -1 }));
      const slots = new SwapRemoveSet<Item>();
      const model = new Set<Item>();
      for (const { id, put } of steps) {
        const item = all[id];
        if (item === undefined) continue;
        if (!put) slots.delete(item);
        else if (!model.has(item)) slots.add(item);
        if (put) model.add(item);
        else model.delete(item);
        expect(slots.size).toBe(model.size);
        expect(new Set(slots.items())).toEqual(model);
        expect(item.slot === -1).toBe(!model.has(item));
      }
    }),
  );
});
