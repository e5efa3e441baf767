// Stream a completion from a spiketrain server. All it knows of the server is the .proto file.
//
//   npm install
//   node generate.js 127.0.0.1:50051 "Once upon a time" [max_new_tokens] [seed]

const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const PROTO_ROOT = path.join(__dirname, "..", "..", "proto");

const [address, text, maxNewTokens, seed] = process.argv.slice(2);
if (address === undefined || text === undefined) {
  console.error("usage: node generate.js HOST:PORT PROMPT [MAX_NEW_TOKENS] [SEED]");
  process.exit(2);
}

const definition = protoLoader.loadSync("spiketrain/v1/generation.proto", {
  includeDirs: [PROTO_ROOT],
  keepCase: true,
  longs: String,
  enums: String,
});
const { Generation } = grpc.loadPackageDefinition(definition).spiketrain.v1;
const client = new Generation(address, grpc.credentials.createInsecure());

const request = { text };
if (maxNewTokens !== undefined) request.max_new_tokens = Number(maxNewTokens);
if (seed !== undefined) request.seed = seed;

const stream = client.GenerateStream(request);
process.on("SIGINT", () => stream.cancel());

stream.on("data", ({ prompt, delta, finish }) => {
  if (prompt) console.error(`prompt: ${prompt.prompt_tokens} tokens, seed ${prompt.seed}`);
  if (delta) process.stdout.write(delta.text);
  if (finish) {
    const { usage, activity, timings } = finish;
    const rate = (100 * activity.firing_rate).toFixed(1);
    console.log();
    console.error(
      `${usage.new_tokens} tokens (${finish.reason}) in ${timings.decode_s.toFixed(3)} s, ` +
        `firing rate ${rate} %`,
    );
  }
});
stream.on("error", (error) => {
  console.error(`error: ${grpc.status[error.code]}: ${error.details}`);
  process.exitCode = 1;
});
stream.on("end", () => client.close());
