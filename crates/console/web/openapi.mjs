// TypeScript types of the schemas in an OpenAPI 3.1 document: as much of JSON Schema as ours makes use of.

/** The text of a module with a type for each schema. */
export function typesOf(document) {
  const types = Object.entries(document.components.schemas).map(([name, schema]) => {
    return `${comment(schema, "")}export type ${name} = ${typeOf(schema, "")};\n`;
  });
  return `// Made of docs/openapi.json by build.mjs.\n\n${types.join("\n")}`;
}

function comment(schema, indent) {
  const text = schema.description?.replaceAll("*/", "* /").replaceAll(/\s+/g, " ");
  return text ? `${indent}/** ${text} */\n` : "";
}

function typeOf(schema, indent) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.allOf) return schema.allOf.map((part) => `(${typeOf(part, indent)})`).join(" & ");
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices) return choices.map((choice) => `(${typeOf(choice, indent)})`).join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (Array.isArray(schema.type)) return schema.type.map((type) => typeOf({ ...schema, type }, indent)).join(" | ");
  switch (schema.type) {
    case "array":
      return `(${typeOf(schema.items ?? {}, indent)})[]`;
    case "object":
      return objectOf(schema, indent);
    case "integer":
    case "number":
      return "number";
    case "string":
    case "boolean":
    case "null":
      return schema.type;
    default:
      return "unknown";
  }
}

function objectOf(schema, indent) {
  if (!schema.properties) {
    const of = typeof schema.additionalProperties === "object" ? typeOf(schema.additionalProperties, indent) : "unknown";
    return `{ [key: string]: ${of} }`;
  }
  const inner = `${indent}  `;
  const members = Object.entries(schema.properties).map(([name, member]) => {
    const mark = schema.required?.includes(name) ? "" : "?";
    return `${comment(member, inner)}${inner}${JSON.stringify(name)}${mark}: ${typeOf(member, inner)};\n`;
  });
  return `{\n${members.join("")}${indent}}`;
}
