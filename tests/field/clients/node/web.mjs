// web in Node.js: serves HTTP with its stock instrumentation, and asks inventory through one library.
// Usage: node --import ./tracing.mjs web.mjs CLIENT. The first line of its output is its port.
import http from 'node:http';

const { ask } = await import(`./${process.argv[2]}.mjs`);

async function isAnswered(url, number) {
  try {
    await ask(url, { 'x-field-ask': String(number) });
    return true;
  } catch (error) {
    if (process.env.FIELD_DEBUG) console.error(error);
    return false;
  }
}

async function work({ shape, inventory, backup }) {
  if (shape === 'two') {
    await isAnswered(`${inventory}/items/1`, 1);
    return isAnswered(`${inventory}/items/2`, 2);
  }
  if (shape === 'parallel') {
    const answered = await Promise.all([1, 2].map((number) => isAnswered(`${inventory}/items/1`, number)));
    return answered.every(Boolean);
  }
  if (await isAnswered(`${inventory}/items/1`, 1)) return true;
  return shape === 'fallback' && isAnswered(`${backup}/items/1`, 1);
}

const server = http.createServer(async (request, response) => {
  const query = Object.fromEntries(new URL(request.url, 'http://web').searchParams);
  const done = await work(query);
  response.writeHead(done ? 200 : 502, { connection: 'close' }).end(done ? 'done' : 'failed');
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
