// Compiles objects against the types of a version of npm stripe: node typecheck.js FOLDER PACKAGE exact|more < [{name, type, value}, ...]
// Prints the complaints of the TypeScript compiler, one to a line: properties that are missing or of another kind, and, if exact, those
// that the type does not have.
'use strict';
const path = require('path');
const fs = require('fs');

const [folder, name, mode] = process.argv.slice(2);
const ts = require(path.join(folder, 'node_modules/typescript'));
const objects = JSON.parse(fs.readFileSync(0, 'utf8'));
const source = path.join(folder, `objects-${process.pid}.ts`);
// A literal is refused for a property too many; a value that has been a constant before is not.
const mutable =
    'type Mutable<T> = T extends readonly (infer U)[] ? Mutable<U>[] : T extends object ? { -readonly [K in keyof T]: Mutable<T[K]> } : T;';
const lines = objects.map(({ type, value }, i) => {
    const text = JSON.stringify(value);
    if (mode === 'exact') return `const object${i}: Stripe.${type} = ${text};`;
    return `const constant${i} = ${text} as const; const object${i}: Stripe.${type} = null! as Mutable<typeof constant${i}>;`;
});
const text = [`import Stripe from 'stripe'; ${mutable}`, ...lines, 'export {};'].join('\n');

const options = {
    noEmit: true, strict: true, esModuleInterop: true, skipLibCheck: true, types: [], lib: ['lib.es2022.d.ts'],
    module: ts.ModuleKind.CommonJS, moduleResolution: ts.ModuleResolutionKind.Node10,
    baseUrl: folder, paths: { stripe: [`node_modules/${name}/types/index.d.ts`] },
};
const host = ts.createCompilerHost(options);
const { getSourceFile, fileExists } = host;
host.fileExists = (file) => file === source || fileExists(file);
host.getSourceFile = (file, ...rest) => {
    return file === source ? ts.createSourceFile(file, text, ts.ScriptTarget.ES2022, true) : getSourceFile(file, ...rest);
};
const program = ts.createProgram([source], options, host);
const file = program.getSourceFile(source);
for (const problem of [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)]) {
    const { line } = file.getLineAndCharacterOfPosition(problem.start);
    const where = objects[line - 1] ? objects[line - 1].name : 'import';
    const at = text.slice(problem.start, problem.start + 40).split('\n')[0];
    console.log(`${where}: ${ts.flattenDiagnosticMessageText(problem.messageText, ' ')} (at ${at})`);
}
