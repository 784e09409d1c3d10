// The messages and the services of protos/, which the build copies beside this file.

import { fileURLToPath } from "node:url";

import * as grpc from "@grpc/grpc-js";
import { loadSync, type MessageTypeDefinition } from "@grpc/proto-loader";

import type { ProtoGrpcType as CoordinatorPackage } from "./generated/coordinator.js";
import type { ProtoGrpcType as ErrorPackage } from "./generated/error_details.js";
import type { ProtoGrpcType as PtmPackage } from "./generated/ptm.js";
import type { ProtoGrpcType as StatusPackage } from "./generated/status.js";

const files = [
  "fedbbpt/v1/coordinator.proto",
  "fedbbpt/ptm/v1/ptm.proto",
  "google/rpc/status.proto",
  "google/rpc/error_details.proto",
];
const definition = loadSync(files, {
  includeDirs: [fileURLToPath(new URL("./protos", import.meta.url))],
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
});
const loaded = grpc.loadPackageDefinition(definition) as unknown as CoordinatorPackage & PtmPackage & ErrorPackage;

/** The constructors of the services' clients. */
export const services = {
  Coordinator: loaded.fedbbpt.v1.CoordinatorService,
  Ptm: loaded.fedbbpt.ptm.v1.PtmService,
};

/** Messages that are read or written outside of a call. */
export const messages = {
  Status: (loaded as unknown as StatusPackage).google.rpc.Status,
  ErrorInfo: loaded.google.rpc.ErrorInfo,
  RetryInfo: loaded.google.rpc.RetryInfo,
  UpdateHeader: loaded.fedbbpt.v1.UpdateHeader,
} satisfies Record<string, MessageTypeDefinition<never, unknown>>;
