/** What this browser remembers: language and theme. A browser may refuse to. */
export function kept(name: string): string | null {
  try {
    return localStorage.getItem(`panel.${name}`);
  } catch {
    return null;
  }
}

export function keep(name: string, value: string): void {
  try {
    localStorage.setItem(`panel.${name}`, value);
  } catch {
    // It holds for this page then.
  }
}
