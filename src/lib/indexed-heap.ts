/** An item that knows its place in an IndexedHeap. */
export interface Heaped {
  /** Its index; -1 while it is in no heap. Only for use by the heap. */
  heapIndex: number;
}

/** A binary heap whose items can be removed from the middle, or move when their order changes, in O(log n). */
export class IndexedHeap<Item extends Heaped> {
  readonly #items: Item[] = [];
  readonly #isBefore: (a: Item, b: Item) => boolean;

  /** @param isBefore a strict order */
  constructor(isBefore: (a: Item, b: Item) => boolean) {
    this.#isBefore = isBefore;
  }

  /** The current items, in no particular order. */
  items(): readonly Item[] {
    return [...this.#items];
  }

  /** The item that comes before all others; undefined if there is none. */
  first(): Item | undefined {
    return this.#items[0];
  }

  /** Adds an item, or finds its place anew if it is in this heap already. */
  put(item: Item): void {
    if (item.heapIndex < 0) {
      item.heapIndex = this.#items.length;
      this.#items.push(item);
    }
    this.#settle(item, item.heapIndex);
  }

  /** Removes an item; does nothing if it is not in the heap. */
  delete(item: Item): void {
    const at = item.heapIndex;
    if (this.#items[at] !== item) return;
    item.heapIndex = -1;
    const last = this.#items.pop();
    if (last !== undefined && last !== item) this.#settle(last, at);
  }

  /** Puts an item at an index, or wherever it belongs above or below that. */
  #settle(item: Item, from: number): void {
    const items = this.#items;
    let at = from;
    for (let parent; at > 0; at = parent) {
      parent = (at - 1) >> 1;
      const above = items[parent];
      if (above === undefined || !this.#isBefore(item, above)) break;
      this.#set(at, above);
    }
    for (;;) {
      let child = 2 * at + 1;
      const [left, right] = [items[child], items[child + 1]];
      if (left === undefined) break;
      let below = left;
      if (right !== undefined && this.#isBefore(right, left)) {
        child += 1;
        below = right;
      }
      // An item that has moved up is before everything below it, so this ends at once.
      if (below === item || !this.#isBefore(below, item)) break;
      this.#set(at, below);
      at = child;
    }
    this.#set(at, item);
  }

  #set(at: number, item: Item): void {
    this.#items[at] = item;
    item.heapIndex = at;
  }
}
