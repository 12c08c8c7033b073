# The promise: no coroutine is written in one of the shapes that g++ 12 compiles wrongly: at most one co_await in a statement, none
# in the condition of if, while, for or switch, none together with ?:, none with braced temporaries among the arguments.
use v5.36;
use Billing::Process qw(root slurp);
use Billing::Source qw(sources bare_text);
use Test::More;

# Tokens are words, brackets and single characters; a bracket becomes a group [kind, line, children...].
sub groups($text) {
    my @stack = (['{', 1]);
    my $line = 1;
    while ($text =~ /\G(?:(\n)|(\s)|(\w+)|(.))/gcs) {
        $line++, next if defined $1;
        next if defined $2;
        my $token = $3 // $4;
        if ($token =~ /^[(\[{]$/) {
            my $group = [$token, $line];
            push $stack[-1]->@*, $group;
            push @stack, $group;
        } elsif ($token =~ /^[)\]}]$/) {
            pop @stack if @stack > 1;
        } else {
            push $stack[-1]->@*, {text => $token, line => $line};
        }
    }
    return $stack[0];
}

sub is_group($item, $kind) { ref $item eq 'ARRAY' && $item->[0] eq $kind }
sub children($group) { $group->@[2 .. $#$group] }
sub is_word($item, $text) { ref $item eq 'HASH' && $item->{text} eq $text }

# Braces with statements in them, as opposed to initializers.
sub is_block($item) {
    return is_group($item, '{') && grep { is_word($_, ';') || is_block($_) } children($item);
}

# All words of a statement, deep, but without the blocks of lambdas in it: those are statements of their own.
sub words(@items) {
    return map { ref $_ eq 'HASH' ? $_ : is_block($_) ? () : words(children($_)) } @items;
}

sub awaits(@items) { grep { $_->{text} eq 'co_await' } words(@items) }

sub initializers(@items) {    # braced initializers, deep
    return map { ref $_ eq 'HASH' || is_block($_) ? () : is_group($_, '{') ? ($_, initializers(children($_))) : initializers(children($_)) } @items;
}

sub check_statement(@items) {
    my @awaits = awaits(@items) or return ();
    my $line = $awaits[0]{line};
    my @wrong;
    push @wrong, [$awaits[1]{line}, 'more than one co_await in a statement'] if @awaits > 1;
    push @wrong, [$line, 'co_await together with ?:'] if grep { $_->{text} eq '?' } words(@items);
    for my $index (0 .. $#items - 1) {
        next if ref $items[$index] ne 'HASH' || $items[$index]{text} !~ /^(?:if|while|for|switch)$/;
        my $next = $items[$index + 1];
        $next = $items[$index + 2] if is_word($next, 'constexpr');
        push @wrong, [$line, "co_await in the condition of $items[$index]{text}"] if ref $next eq 'ARRAY' && awaits($next);
    }
    my @among_arguments = map { initializers(children($_)) } deep_parentheses(@items);
    push @wrong, [$line, 'braces among the arguments of an awaited call'] if @among_arguments;
    push @wrong, [$line, 'co_await inside braces'] if grep { awaits(children($_)) } initializers(@items);
    return @wrong;
}

sub deep_parentheses(@items) {
    return map { ref $_ eq 'HASH' || is_block($_) ? () : is_group($_, '(') ? $_ : deep_parentheses(children($_)) } @items;
}

sub check_block($block) {
    my (@wrong, @statement);
    for my $item (children($block), {text => ';', line => 0}) {
        if (is_block($item) || is_word($item, ';')) {
            push @wrong, check_statement(@statement), map { check_block($_) } blocks_within(@statement);
            push @wrong, check_block($item) if ref $item eq 'ARRAY';
            @statement = ();
        } else {
            push @statement, $item;
        }
    }
    return @wrong;
}

sub blocks_within(@items) {    # of lambdas, and the parts of for (;;)
    return map { ref $_ eq 'HASH' ? () : is_block($_) ? $_ : blocks_within(children($_)) } @items;
}

sub violations($text) {
    my $bare = bare_text($text) =~ s/^[ \t]*#(?:[^\n\\]|\\.)*/ /gmsr;    # the preprocessor's lines have no statements
    return map { "line $_->[0]: $_->[1]" } sort { $a->[0] <=> $b->[0] } check_block(groups($bare));
}

my @good = (
    'auto a = co_await f(x); auto b = co_await g(a);',
    'Task<int> f() { auto a = co_await g(std::move(q)); if (a) { co_return co_await h(a); } co_return a ? 1 : 2; }',
    'for (int i = 0; i < 3; ++i) { co_await step(i); }',
    'while (!done) { const bool ok = co_await step(); if (!ok) { break; } }',
    'scope.start([&]() -> Task<void> { co_await a(); co_await b(); }());',
    'Query query{"select 1", {x}}; auto rows = co_await pg.run(std::move(query));',
    'auto t = co_await f(std::string("a"), [&](int n) { return n ? 1 : 2; });',
    "// co_await a() + co_await b();\nauto s = \"co_await x ? co_await y : z\"; co_await f(1'000'000);",
    'if (x) co_await f(x); else co_await g(x);',
    'switch (n) { case 1: co_await f(); break; default: co_await g(); }',
);
my %bad = (
    'auto x = co_await a() + co_await b();' => 'more than one co_await in a statement',
    'int f() { bool r = co_await a() && co_await b(); }' => 'more than one co_await in a statement',
    'auto x = co_await f(co_await g());' => 'more than one co_await in a statement',
    'int f() { if (co_await a()) { b(); } }' => 'co_await in the condition of if',
    'int f() { if (auto x = co_await a(); x) { b(); } }' => 'co_await in the condition of if',
    'int f() { while (co_await a()) { b(); } }' => 'co_await in the condition of while',
    'int f() { do { b(); } while (co_await a()); }' => 'co_await in the condition of while',
    'int f() { for (auto& x : co_await a()) { b(); } }' => 'co_await in the condition of for',
    'int f() { for (int i = 0; co_await a(i); ++i) { b(); } }' => 'co_await in the condition of for',
    'int f() { switch (co_await a()) { case 1: b(); } }' => 'co_await in the condition of switch',
    'auto s = c ? to_string(co_await x) : string();' => 'co_await together with ?:',
    'co_return c ? co_await x : 1;' => 'co_await together with ?:',
    'auto x = co_await f(Agg{1, 2});' => 'braces among the arguments of an awaited call',
    'auto x = co_await f({});' => 'braces among the arguments of an awaited call',
    'auto x = co_await f(g({.s = 1}));' => 'braces among the arguments of an awaited call',
    'auto x = Agg{co_await f()};' => 'co_await inside braces',
    "scope.start([&]() -> Task<void> {\n  co_await f(Agg{});\n  done();\n}());" => 'braces among the arguments of an awaited call',
);
is_deeply [violations($_)], [], "clean: $_" for @good;
for my $text (sort keys %bad) {
    ok scalar(grep { /\Q$bad{$text}\E/ } violations($text)), "found: $text" or diag violations($text);
}
is_deeply [violations("\n\nint f() {\n  // x\n  auto x = co_await f(Agg{});\n}\n")], ['line 5: braces among the arguments of an awaited call'],
    'the line is right';

my @wrong;
my $count = 0;
for my $file (sources()) {
    my $text = slurp(root() . "/$file");
    $count += () = bare_text($text) =~ /\bco_await\b/g;
    push @wrong, map { "$file: $_" } violations($text);
}
cmp_ok $count, '>', 0, "there are co_awaits to look at ($count)";
is join("\n", @wrong), '', 'no await in a shape that g++ 12 gets wrong';

done_testing;
