// grpc-js 1.14 with the retry policy of a service config: 3 attempts, about 100 ms apart; 500 ms for all of them.
import { Client, Metadata, credentials } from '@grpc/grpc-js';

const METHOD = '/field.Inventory/Get';
const config = {
  methodConfig: [
    {
      name: [{ service: 'field.Inventory' }],
      retryPolicy: {
        maxAttempts: 3,
        initialBackoff: '0.1s',
        maxBackoff: '0.1s',
        backoffMultiplier: 1,
        retryableStatusCodes: ['UNAVAILABLE', 'RESOURCE_EXHAUSTED'],
      },
    },
  ],
};
const clients = new Map();

export function ask(url, headers) {
  const { host, pathname } = new URL(url);
  if (!clients.has(host)) {
    clients.set(host, new Client(host, credentials.createInsecure(), { 'grpc.service_config': JSON.stringify(config) }));
  }
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  metadata.set('x-field-item', pathname.split('/').pop());
  return new Promise((resolve, reject) => {
    clients
      .get(host)
      .makeUnaryRequest(METHOD, (x) => x, (x) => x, Buffer.alloc(0), metadata, { deadline: Date.now() + 500 }, (error) =>
        error ? reject(error) : resolve(),
      );
  });
}
