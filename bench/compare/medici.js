"use strict";
// medici in a process of its own, told what to do in JSON lines: `node medici.js URL DATABASE`.
//
// {"fund": [USER...], "micros": N}                      -> {"ok": true}
// {"users": [USER...], "micros": N, "callers": N, "seconds": N, "most": N}
//     debits of users taken at random -> what came of them
//
// A debit is the recipe of medici's README under "ACID checks of an account balance", to the
// letter but for the amounts' precision.

const readline = require("node:readline");
const mongoose = require("mongoose");
const { Book, initModels, mongoTransaction } = require("medici");

const [url, database, snapshotSeconds] = process.argv.slice(2);
const FUNDED_TOGETHER = 32;

class Refused extends Error {}

// Whole micro-credits. Without a snapshot a balance is summed by the index of its account: see
// RESULTS.md for what snapshots do here.
const book = new Book("credits", {
  precision: 0,
  balanceSnapshotSec: Number(snapshotSeconds),
});

function account(user) {
  return `Accounts:${user}`;
}

async function debit(user, micros) {
  let tries = 0;
  await mongoTransaction(async (session) => {
    tries += 1;
    await book
      .entry("Withdraw by User")
      .credit("Assets", micros)
      .debit(account(user), micros)
      .commit({ session });
    const after = await book.balance({ account: account(user) }, { session });
    if (after.balance < 0) {
      throw new Refused();
    }
    await book.writelockAccounts([account(user)], { session });
  });
  return tries - 1;
}

async function fund(users, micros) {
  const waiting = users.values();
  async function caller() {
    for (const user of waiting) {
      await book.entry("Funds").credit(account(user), micros).debit("Assets", micros).commit();
    }
  }
  await Promise.all(Array.from({ length: FUNDED_TOGETHER }, caller));
  return { ok: true };
}

async function run({ users, micros, callers, seconds, most }) {
  const outcome = { done: 0, refused: 0, retries: 0, errors: {}, latencies_ms: [] };
  const began = performance.now();
  let left = most;
  async function caller() {
    while (left > 0 && performance.now() - began < seconds * 1000) {
      left -= 1;
      await attempt(users[Math.floor(Math.random() * users.length)], micros, outcome);
    }
  }
  await Promise.all(Array.from({ length: callers }, caller));
  return { ...outcome, seconds: (performance.now() - began) / 1000 };
}

async function attempt(user, micros, outcome) {
  const began = performance.now();
  try {
    const retries = await debit(user, micros);
    outcome.retries += retries;
    outcome.done += 1;
    outcome.latencies_ms.push(performance.now() - began);
  } catch (error) {
    if (error instanceof Refused) {
      outcome.refused += 1;
    } else {
      const name = error.codeName || error.name;
      outcome.errors[name] = (outcome.errors[name] || 0) + 1;
    }
  }
}

async function main() {
  await mongoose.connect(url, { dbName: database });
  await initModels();
  say({ ready: true });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const asked = JSON.parse(line);
    say(asked.fund ? await fund(asked.fund, asked.micros) : await run(asked));
  }
  await mongoose.disconnect();
}

function say(answer) {
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
