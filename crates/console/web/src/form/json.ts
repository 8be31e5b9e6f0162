// JSON that somebody types.

/** The value of a text; `undefined` where it is empty. */
export function parsed(text: string): { value?: unknown; error?: string } {
  if (!text.trim()) return {};
  try {
    return { value: JSON.parse(text) as unknown };
  } catch (error) {
    return { error: `This is not JSON: ${(error as Error).message}` };
  }
}
