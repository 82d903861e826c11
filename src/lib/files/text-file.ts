import { type FileHandle, mkdtemp, open, rm } from "node:fs/promises";
import path from "node:path";
import { fileErrorCode } from "./file-ops.ts";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import { createGunzip, gunzip, gzip } from "node:zlib";

const [compress, expand] = [promisify(gzip), promisify(gunzip)];

/** A file that doesn't change, or only grows, read at any place. */
export interface TextFile {
  /** In bytes, when it was opened. */
  readonly size: number;
  /** Fewer bytes than asked for at the end of the file. */
  readAt(position: number, length: number): Promise<Buffer>;
  close(): Promise<void>;
}

/** A file as it is. */
export async function plainFile(file: FileHandle): Promise<TextFile> {
  const { size } = await file.stat();
  return { size, readAt: (position, length) => readAt(file, position, length), close: () => file.close() };
}

/** Text in a block of its own in an archive; its size before compression, in bytes. */
const blockBytes = 256 << 10;
/** An archive ends in a member without text, whose header has the index in its extra field. */
const headerStart = Buffer.from("1f8b08040000000000ff", "hex");
const emptyText = Buffer.from("03000000000000000000", "hex");
const fieldName = Buffer.from("BI");
/** The header's fixed part, the length of its extra field, and the name and the length of the field in it. */
const beforeIndex = headerStart.length + 2 + 4;
const entryBytes = 8;
const countBytes = 4;
const maxBlocks = Math.floor((0xffff - 4 - countBytes) / entryBytes);
/** An index that names a larger block is not ours: reading it would take as much memory. */
const maxBlockBytes = 16 << 20;

/**
 * Compresses a text to gzip that any program reads, in blocks, with an index of these at its end: so that readGzip finds
 * any place at once. Returns false, with the work undone, once `goesOn` returns false.
 *
 * @param goesOn called after each block with the ms that it took
 */
export async function writeGzip(
  source: TextFile,
  target: FileHandle,
  goesOn: (tookMs: number) => Promise<boolean>,
): Promise<boolean> {
  const length = Math.max(blockBytes, Math.ceil(source.size / maxBlocks));
  const entries: Buffer[] = [];
  for (let start = 0; start < source.size; start += length) {
    const startedAt = performance.now();
    const text = await source.readAt(start, Math.min(length, source.size - start));
    const block = await compress(text);
    await target.appendFile(block);
    entries.push(uint32(block.length), uint32(text.length));
    if (!(await goesOn(performance.now() - startedAt))) return false;
  }
  const index = Buffer.concat([...entries, uint32(entries.length / 2)]);
  const field = [fieldName, uint16(index.length), index];
  await target.appendFile(Buffer.concat([headerStart, uint16(4 + index.length), ...field, emptyText]));
  await target.datasync();
  return true;
}

/** A text is larger than may be expanded. */
export class ExpansionError extends Error {
  override readonly name = "ExpansionError";
}

/**
 * Reads gzip: what writeGzip has written block by block; anything else is expanded into a file beside it, which is gone
 * once it is closed. Damaged blocks read as zeros. Closes `file` where it rejects, as with Node's errors of files.
 *
 * @param name of the file
 * @param maxBytes most that is expanded: a small file may become a thousand times as large
 * @throws ExpansionError
 */
export async function readGzip(file: FileHandle, name: string, maxBytes: number): Promise<TextFile> {
  try {
    const blocks = await readIndex(file);
    if (blocks !== null) return indexedFile(file, blocks);
    const expanded = await expandBeside(file, name, maxBytes);
    await file.close();
    return await plainFile(expanded);
  } catch (error) {
    await file.close().catch(() => undefined);
    throw error;
  }
}

interface Block {
  /** Where it is in the archive, and in the text. */
  readonly at: number;
  readonly bytes: number;
  readonly textAt: number;
  readonly textBytes: number;
}

/** Null if it has none: somebody else has written it. */
async function readIndex(file: FileHandle): Promise<readonly Block[] | null> {
  const { size } = await file.stat();
  const tail = await readAt(file, Math.max(0, size - countBytes - emptyText.length), countBytes + emptyText.length);
  if (tail.length < countBytes + emptyText.length || !tail.subarray(countBytes).equals(emptyText)) return null;
  const count = tail.readUInt32LE();
  const memberBytes = beforeIndex + count * entryBytes + countBytes + emptyText.length;
  if (count > maxBlocks || memberBytes > size) return null;
  const member = await readAt(file, size - memberBytes, memberBytes);
  let isOurs =
    member.subarray(0, headerStart.length).equals(headerStart) && member.indexOf(fieldName) === headerStart.length + 2;
  const blocks: Block[] = [];
  let [at, textAt] = [0, 0];
  for (let index = 0; isOurs && index < count; index++) {
    const entry = beforeIndex + index * entryBytes;
    const [bytes, textBytes] = [member.readUInt32LE(entry), member.readUInt32LE(entry + 4)];
    if (bytes > maxBlockBytes || textBytes > maxBlockBytes) isOurs = false;
    blocks.push({ at, bytes, textAt, textBytes });
    at += bytes;
    textAt += textBytes;
  }
  return isOurs && at === size - memberBytes ? blocks : null;
}

function indexedFile(file: FileHandle, blocks: readonly Block[]): TextFile {
  const last = blocks.at(-1);
  const size = last === undefined ? 0 : last.textAt + last.textBytes;
  /** The block that was read last: mostly the next read is of it as well. */
  let known: { readonly block: Block; readonly text: Buffer } | undefined;

  async function textOf(block: Block): Promise<Buffer> {
    if (known?.block === block) return known.text;
    const bytes = await readAt(file, block.at, block.bytes);
    const text = await expand(bytes, { maxOutputLength: block.textBytes }).catch(() => Buffer.alloc(block.textBytes));
    known = { block, text };
    return text;
  }

  return {
    size,
    async readAt(position, length) {
      const end = Math.min(position + length, size);
      const parts: Buffer[] = [];
      for (const block of blocks) {
        if (block.textAt >= end) break;
        if (block.textAt + block.textBytes <= position) continue;
        const text = await textOf(block);
        parts.push(text.subarray(Math.max(0, position - block.textAt), end - block.textAt));
      }
      return Buffer.concat(parts);
    },
    close: () => file.close(),
  };
}

/** Into a file that has no name any more. What is cut off or damaged ends where it can no longer be read. */
async function expandBeside(file: FileHandle, name: string, maxBytes: number): Promise<FileHandle> {
  const folder = await mkdtemp(path.join(path.dirname(name), ".gunzip-"));
  let target: FileHandle;
  try {
    target = await open(path.join(folder, "text"), "wx+", 0o600);
  } finally {
    await rm(folder, { recursive: true });
  }
  let left = maxBytes;
  try {
    await pipeline(file.createReadStream({ start: 0, autoClose: false }), createGunzip(), async (texts) => {
      for await (const text of texts as AsyncIterable<Buffer>) {
        left -= text.length;
        if (left < 0) throw new ExpansionError("too large");
        await target.appendFile(text);
      }
    });
  } catch (error) {
    if (fileErrorCode(error)?.startsWith("Z_") !== true) {
      await target.close();
      // The pipeline says only that it was aborted.
      throw left < 0 ? new ExpansionError(`its text is larger than ${maxBytes} bytes`) : error;
    }
  }
  return target;
}

async function readAt(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(length), 0, length, position);
  return buffer.subarray(0, bytesRead);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function uint16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}
