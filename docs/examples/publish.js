// Publish the documents of an NDJSON file over AMQP, and print what became of each.
//
//     npm install amqplib
//     node docs/examples/publish.js amqp://upstream:PASSWORD@HOST:5672/%2F ORDERS.ndjson
//
// Each document is confirmed by the broker. Its outcome comes back to this channel (direct reply-to).
// Publishing the file again changes nothing: the answers then say that they are repeated.
const fs = require("node:fs");
const amqp = require("amqplib");

const WAIT_MS = 60_000;

async function main(url, file) {
  const user = decodeURIComponent(new URL(url).username);
  const documents = fs.readFileSync(file, "utf8").split("\n").filter((line) => line.trim());
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();
  channel.on("return", () => fail("the broker has no queue for documents: run `autorenew broker setup`"));

  let left = documents.length;
  const answered = new Promise((resolve) => {
    const onAnswer = (message) => {
      const { verdict, key, order_id: id, repeated, problems } = JSON.parse(message.content.toString());
      const said = problems.map(({ code, path }) => `${code} at ${path || "the document"}`).join(", ");
      console.log(message.properties.correlationId, verdict, key ?? "-", id ?? "-", repeated ? "again" : "", said);
      if (--left === 0) resolve();
    };
    // Before the first document goes out, on the same channel, without acknowledgements.
    channel.consume("amq.rabbitmq.reply-to", onAnswer, { noAck: true }).then(() => {
      documents.forEach((document, number) => {
        channel.publish("intake", "", Buffer.from(document), {
          userId: user, // checked by the broker; whose keys these are
          contentType: "application/json",
          persistent: true,
          mandatory: true,
          replyTo: "amq.rabbitmq.reply-to",
          correlationId: `line-${number + 1}`,
        });
      });
    });
  });
  setTimeout(() => fail(`${left} documents are not answered yet; send them again to ask`), WAIT_MS).unref();
  await answered;
  await channel.waitForConfirms();
  await connection.close();
}

function fail(why) {
  console.error(why);
  process.exit(1);
}

if (process.argv.length !== 4) fail("usage: node publish.js URL ORDERS.ndjson");
main(process.argv[2], process.argv[3]).catch((error) => fail(error.message));
