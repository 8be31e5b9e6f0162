// JSON as text. Parsed and written again, `150.00` would be `150` and a long number another one; what somebody has sent is
// shown as it is, only with other white space.

/** The tokens of a JSON text: strings, numbers and words whole, each bracket, comma and colon on its own. */
function tokens(text: string): string[] | null {
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  return text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/gs) ?? [];
}

/** JSON with a line for each member; any other text as it is. */
export function layOut(text: string): string {
  const all = tokens(text);
  if (!all) return text;
  let depth = 0;
  let laid = "";
  const line = () => `\n${"  ".repeat(depth)}`;
  all.forEach((token, n) => {
    const before = all[n - 1];
    const isEmpty = (before === "{" || before === "[") && (token === "}" || token === "]");
    if (token === "}" || token === "]") {
      depth -= 1;
      laid += isEmpty ? token : line() + token;
      return;
    }
    if (before === "{" || before === "[" || before === ",") laid += line();
    laid += token === ":" ? ": " : token;
    if (token === "{" || token === "[") depth += 1;
  });
  return laid;
}

/** The text of a member of a JSON object, as it stands there. */
export function memberText(text: string, name: string): string | undefined {
  const all = tokens(text);
  if (!all) return undefined;
  let depth = 0;
  for (const [n, token] of all.entries()) {
    if (depth === 1 && token === ":" && all[n - 1] === JSON.stringify(name)) {
      let inner = 0;
      const value: string[] = [];
      for (const part of all.slice(n + 1)) {
        if (inner === 0 && (part === "," || part === "}")) break;
        if (part === "{" || part === "[") inner += 1;
        if (part === "}" || part === "]") inner -= 1;
        value.push(part);
      }
      return value.join("");
    }
    if (token === "{" || token === "[") depth += 1;
    if (token === "}" || token === "]") depth -= 1;
  }
  return undefined;
}
