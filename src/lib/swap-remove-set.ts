/** Something that knows its place in a SlotSet. */
export interface Slotted {
  /** Its index; -1 while it is in none. For the set alone. */
  slot: number;
}

/**
 * A set of objects that come and go by the thousand. As fast as a Set, and without what a Set leaves behind: V8 makes
 * a new table for it every few dozen changes, and each old table, once it has outlived a collection, keeps the next one
 * alive, and with it all that was ever in them, until the next full collection. Then every request outlives the cheap
 * collections, which doubles what collecting costs.
 */
export class SwapRemoveSet<Item extends Slotted> {
  readonly #items: Item[] = [];

  get size(): number {
    return this.#items.length;
  }

  /** The items as they are now, in no order. */
  items(): readonly Item[] {
    return [...this.#items];
  }

  /** Puts in an item that is in no set. */
  add(item: Item): void {
    item.slot = this.#items.length;
    this.#items.push(item);
  }

  /** Takes an item out; does nothing where it is not in. */
  delete(item: Item): void {
    const { slot } = item;
    if (this.#items[slot] !== item) return;
    const last = this.#items.pop();
    if (last !== undefined && last !== item) {
      this.#items[slot] = last;
      last.slot = slot;
    }
    item.slot = -1;
  }
}
