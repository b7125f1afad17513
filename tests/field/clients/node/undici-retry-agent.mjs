// undici 7, request() with RetryAgent: 3 attempts, 100 ms and 200 ms apart, 500 ms each; 429 and 5xx are tried again.
import { Agent, RetryAgent, request } from 'undici';

const dispatcher = new RetryAgent(new Agent({ headersTimeout: 500, bodyTimeout: 500 }), {
  maxRetries: 2,
  minTimeout: 100,
  timeoutFactor: 2,
  throwOnError: true,
  statusCodes: [429, 500, 502, 503, 504],
});

export async function ask(url, headers) {
  const { statusCode, body } = await request(url, { dispatcher, headers });
  await body.text();
  if (statusCode >= 300) throw new Error(`status ${statusCode}`);
}
