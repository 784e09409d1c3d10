// Connections: addresses, TLS, tokens, and unary calls as promises.

import { readFileSync } from "node:fs";

import * as grpc from "@grpc/grpc-js";

import { FedbbptError, fromServiceError } from "./errors.js";

/** How to reach a service and how to show who is calling. */
export interface Access {
  /** HOST:PORT, or several with commas between them. */
  address: string;
  /** The option that holds the address, for messages. */
  option: string;
  tlsCa?: string | undefined;
  clientCert?: string | undefined;
  clientKey?: string | undefined;
  tokenFile?: string | undefined;
}

/** A unary rpc with requests Q and answers A. */
export interface Method<Q, A> {
  path: string;
  requestSerialize(request: Q): Buffer;
  responseDeserialize(bytes: Buffer): A;
}

const MAX_MESSAGE_BYTES = 2 ** 30;

/** The servers of one service. Calls go to one of them, and to the next one after a failure. */
export class Channel<C extends grpc.Client> {
  private readonly clients: C[];
  private current = 0;
  private readonly token: string | undefined;

  constructor(
    Client: new (address: string, credentials: grpc.ChannelCredentials, options: grpc.ChannelOptions) => C,
    access: Access,
    /** The reason of errors for which the service gave none. */
    private readonly unavailable: string,
  ) {
    const secure = Boolean(access.tlsCa || access.clientCert);
    const addresses = access.address.split(",").map((address) => checked(address.trim(), access.option));
    const remote = addresses.find((address) => !isLoopback(address));
    if (remote && !secure) {
      const fix = access.option.replace(/coordinator|ptm/, (role) => (role === "ptm" ? "ptm-tls-ca" : "tls-ca"));
      throw new FedbbptError("InsecureAddress", `${remote} is another machine, and there is no TLS`, access.option,
        `${fix} FILE, the authority of its certificate`);
    }
    this.token = access.tokenFile ? contents(access.tokenFile, "token file").toString("utf8").trim() : undefined;
    this.clients = addresses.map((address) => new Client(address, credentials(access, secure), options(address)));
  }

  /** The client of the server in use. */
  get client(): C {
    return this.clients[this.current];
  }

  /** Chooses the next server. */
  next(): void {
    this.current = (this.current + 1) % this.clients.length;
  }

  /** Returns the metadata of a call. */
  metadata(): grpc.Metadata {
    const metadata = new grpc.Metadata();
    if (this.token) metadata.set("authorization", `Bearer ${this.token}`);
    return metadata;
  }

  /** Makes a call with a deadline. Throws the service's error. */
  async call<Q, A>(method: Method<Q, A>, request: Q, seconds: number): Promise<A> {
    return new Promise<A>((resolve, reject) => {
      const options = { deadline: Date.now() + 1000 * seconds };
      const { path, requestSerialize, responseDeserialize } = method;
      this.client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, this.metadata(), options,
        (error, answer) => {
          if (error) reject(this.problem(error));
          else if (answer === undefined) reject(new FedbbptError("WrongService", "an empty answer"));
          else resolve(answer);
        });
    });
  }

  /** Returns the error of a failed call. */
  problem(error: grpc.ServiceError): FedbbptError {
    return fromServiceError(error, this.unavailable);
  }

  /** Ends the connections. */
  close(): void {
    for (const client of this.clients) client.close();
  }
}

function checked(address: string, option: string): string {
  const match = /^(\[[0-9a-fA-F:]+\]|[^\s:[\]/]+):(\d{1,5})$/.exec(address);
  if (!match || Number(match[2]) > 65535 || Number(match[2]) === 0) {
    throw new FedbbptError("InvalidInput", `${JSON.stringify(address)} is no address`, option, "HOST:PORT");
  }
  return address;
}

/** Returns whether an address is this machine's. */
export function isLoopback(address: string): boolean {
  const host = address.replace(/:\d+$/, "").replace(/^\[|\]$/g, "");
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

function options(address: string): grpc.ChannelOptions {
  return {
    "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2000,
    // A proxy in the environment could not reach this machine.
    "grpc.enable_http_proxy": isLoopback(address) ? 0 : 1,
  };
}

function credentials(access: Access, secure: boolean): grpc.ChannelCredentials {
  if (!secure) return grpc.credentials.createInsecure();
  if (Boolean(access.clientCert) !== Boolean(access.clientKey)) {
    throw new FedbbptError("InvalidInput", "a certificate and its key belong together", access.option,
      "--client-cert and --client-key");
  }
  const read = (path: string | undefined) => (path ? contents(path, "TLS file") : null);
  try {
    return grpc.credentials.createSsl(read(access.tlsCa), read(access.clientKey), read(access.clientCert));
  } catch (error) {
    if (error instanceof FedbbptError) throw error;
    throw new FedbbptError("TlsFailed", String(error), access.option, "certificates and keys in PEM");
  }
}

function contents(path: string, what: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new FedbbptError("InvalidInput", `the ${what} cannot be read: ${(error as Error).message}`, path,
      "a file that this user can read");
  }
}
