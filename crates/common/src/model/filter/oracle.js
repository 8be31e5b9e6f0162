// Writes oracle.json: what npm's simple-json-match answers, for the test in tests.rs. To make it again, in a folder of
// its own: npm install simple-json-match@1.3.0, then node oracle.js > oracle.json
'use strict';
const match = require('simple-json-match').default;

// The same numbers every time (mulberry32).
let state = 20240115;
function random(n) {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) % n;
}
const pick = (list) => list[random(list.length)];

const plain = () => pick([0, 1, 2, 5, -1, 1.5, 10, '0', '1', '5', 'a', 'ab', 'abc', 'b', '', ' 5 ', '1e1', 'true', true, false, null]);
const words = ['a', 'ab', 'b', 'bc', '', '1', '5', 'c'];
const numbers = [0, 1, 2, 5, -1, 1.5, 10];
const some = (make, most) => Array.from({ length: random(most + 1) }, make);

function list(depth) {
  return some(() => (depth < 2 && random(4) === 0 ? list(depth + 1) : depth < 2 && random(4) === 0 ? object(2) : plain()), 3);
}
function object(depth) {
  const made = {};
  for (const name of ['s', 't', 'l', 'o']) {
    if (random(4) === 0) continue;
    if (name === 'l') made.l = list(0);
    else if (name === 'o') { if (depth < 2) made.o = object(depth + 1); }
    else made[name] = plain();
  }
  return made;
}

function operators() {
  const made = {};
  for (let i = 0; i <= random(2); i++) {
    const name = pick(['$eq', '$neq', '$gt', '$gte', '$lt', '$lte', '$in', '$nin', '$startsWith', '$endsWith', '$exist']);
    made[name] = {
      $eq: () => (random(4) === 0 ? list(1) : plain()),
      $neq: () => (random(4) === 0 ? list(1) : plain()),
      $in: () => pick([() => pick(words), () => pick(numbers), () => some(() => pick([...words, ...numbers]), 4)])(),
      $startsWith: () => pick([() => pick(words), () => some(() => pick(words), 3)])(),
      $exist: () => random(2) === 0,
    }[{ $nin: '$in', $endsWith: '$startsWith' }[name] || name]?.() ?? pick([...words, ...numbers]);
  }
  return made;
}
const ofPlain = () => pick([plain, operators, operators, () => ({ $or: [plain() ?? 1, operators()] })])();
function ofList() {
  return pick([plain, operators, () => some(plain, 2), () => some(() => pick([plain, () => some(plain, 2), () => filter(2)])(), 2), () => filter(2), () => ({ $or: [plain() ?? 1, operators()] })])();
}
// Only at objects, where library and manual agree on $not and $and.
function filter(depth) {
  const made = {};
  for (const name of ['s', 't', 'l', 'o']) {
    if (random(5) > 1) continue;
    if (name === 'l') made.l = ofList();
    else if (name === 'o') { if (depth < 2) made.o = filter(depth + 1); }
    else made[name] = ofPlain();
  }
  if (depth < 2 && random(4) === 0) made.$or = [filter(depth + 1), filter(depth + 1)];
  if (depth < 2 && random(4) === 0) made.$and = [filter(depth + 1), filter(depth + 1)];
  if (depth < 2 && random(4) === 0) made.$not = filter(depth + 1);
  // Beside $or within a field the library looks at nothing.
  if (depth > 0 && made.$or) return { $or: made.$or };
  return made;
}

const written = [
  [{ type: 'order/created', order: { id: 123 } }, { type: 'order/created' }],
  [{ product: { inventory: 5 } }, { product: { inventory: { $lte: 10 } } }],
  [{ product: { inventory: 5 } }, { product: { inventory: { $or: [1, 5] } } }],
  [{ product: { tags: ['gift', 'x'] } }, { product: { tags: 'gift' } }],
  [{ product: { tags: ['gift', 'x'] } }, { product: { tags: ['gift', 'y'] } }],
  [{ order: { items: [{ id: 456, t: 1 }] } }, { order: { items: { id: 456 } } }],
  [{ order: { items: [{ id: 4, t: 1 }, { id: 5, t: 2 }] } }, { order: { items: { id: 4, t: 2 } } }],
  [{ inventory: 0 }, { old: { $exist: false } }], [{ inventory: null }, { inventory: { $exist: true } }],
  [{ inventory: 0 }, { $not: { inventory: 1 } }], [{ inventory: 1 }, { $not: { inventory: 1 } }],
  [{}, { a: { $neq: 1 } }], [{}, { a: null }], [{ a: null }, { a: null }], [{ a: 0 }, { a: null }], [{ a: '' }, { a: 0 }],
  [{ a: '1' }, { a: 1 }], [{ a: true }, { a: 1 }], [{ a: 'true' }, { a: true }], [{ a: '0x10' }, { a: 16 }],
  [{ a: [] }, { a: [] }], [{ a: {} }, { a: [] }], [{ a: {} }, { a: {} }], [{ a: 1 }, { a: {} }], [{ a: [1] }, { a: {} }], [{ a: [{}] }, { a: {} }],
  [{ a: [[1, 2], [3]] }, { a: 3 }], [{ a: [[1, 2], [3]] }, { a: [[1], [3]] }], [{ a: [[1, 2], [3]] }, { a: [[1, 3]] }],
  [{ a: [1, 2] }, { a: { $eq: [1, 2] } }], [{ a: [2, 1] }, { a: { $eq: [1, 2] } }], [{ a: '[1,2]' }, { a: { $eq: [1, 2] } }],
  [{ a: { b: 1, c: 2 } }, { a: { $eq: { b: 1, c: 2 } } }], [{ a: { c: 2, b: 1 } }, { a: { $eq: { b: 1, c: 2 } } }],
  [{ a: 1.0 }, { a: { $eq: 1 } }], [{ a: [1.5, 1e21, 1e-7] }, { a: { $eq: [1.5, 1e21, 1e-7] } }],
  [{ a: [1, 5] }, { a: { $gt: 3 } }], [{ a: [5] }, { a: { $gt: 3 } }], [{ a: '5' }, { a: { $gt: 3 } }], [{ a: 'x' }, { a: { $gt: 3 } }],
  [{ a: 'b' }, { a: { $gt: 'a' } }], [{ a: '10' }, { a: { $gt: '9' } }], [{ a: true }, { a: { $gte: 1 } }], [{ a: null }, { a: { $lte: 1 } }],
  [{ a: '\ud83d\ude00' }, { a: { $lt: '\uffee' } }],
  [{ a: 'abc' }, { a: { $in: 'b' } }], [{ a: 'a1' }, { a: { $in: 1 } }], [{ a: 1 }, { a: { $in: ['1'] } }], [{ a: 1 }, { a: { $in: [1, 2] } }],
  [{ a: 5 }, { a: { $nin: 'b' } }], [{ a: null }, { a: { $nin: ['b'] } }], [{ a: ['b'] }, { a: { $in: ['b'] } }],
  [{ a: 'abc' }, { a: { $startsWith: ['x', 'ab'] } }], [{ a: 1 }, { a: { $startsWith: '1' } }], [{ a: 'abc' }, { a: { $endsWith: 'bc', $startsWith: 'b' } }],
  [{ a: { 0: 'x' } }, { a: ['x'] }], [{ a: { b: [{ c: [1, { d: 'e' }] }] } }, { a: { b: { c: { d: 'e' } } } }],
  [{ a: 1, b: 2 }, { $or: [{ a: 2 }, { b: 2 }], a: 1 }], [{ a: 1, b: 2 }, { $or: [{ a: 2 }, { b: 2 }], a: 2 }],
  [{ a: 1, b: 2 }, { $and: [{ a: 1 }, { b: 3 }] }], [{ o: { a: 1, b: 2 } }, { o: { $and: [{ a: 1 }, { b: 2 }] } }],
  [{ o: { a: 1 } }, { o: { $not: { a: 2 } } }], [{ l: [{ a: 1 }, { a: 2 }] }, { l: { $not: { a: 1 } } }], [{}, { $not: { a: 1 } }], [{ a: 1 }, { a: 1, $not: { b: 1 } }],
];
const cases = written.slice();
while (cases.length < 700) cases.push([object(0), filter(0)]);
console.log('[');
console.log(cases.map(([input, schema]) => '  ' + JSON.stringify([input, schema, match(input, schema)])).join(',\n'));
console.log(']');
