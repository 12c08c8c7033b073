# The promise: clang-tidy finds nothing in the core (.clang-tidy names the checks). A clean file is remembered in build/tidy by
# the content of all it includes, so that only what changed is looked at again.
use v5.36;
use Billing::Process qw(root build slurp);
use Billing::Source qw(sources);
use Digest::SHA qw(sha256_hex);
use File::Path qw(make_path);
use Test::More;

chdir root() or die $!;
my $folder = build() . '/tidy';
make_path("$folder/include");

# clang 14 reads libstdc++ 12, but has no __builtin_source_location and does not announce its coroutines.
write_file("$folder/include/source_location", <<'END');
#pragma once
namespace std {
struct source_location {
    static constexpr source_location current(const char* file = __builtin_FILE(), const char* function = __builtin_FUNCTION(),
                                             unsigned line = __builtin_LINE()) noexcept {
        source_location here;
        here.file_ = file;
        here.function_ = function;
        here.line_ = line;
        return here;
    }
    constexpr const char* file_name() const noexcept { return file_; }
    constexpr const char* function_name() const noexcept { return function_; }
    constexpr unsigned line() const noexcept { return line_; }
    constexpr unsigned column() const noexcept { return 0; }
    const char* file_ = "";
    const char* function_ = "";
    unsigned line_ = 0;
};
} // namespace std
END
chomp(my $postgres = qx(pg_config --includedir));
my $flags = "-std=c++20 -D__cpp_impl_coroutine=201902L -isystem $folder/include -isystem $postgres -Isrc";
# How many states of a function the analyzer follows: a fifth of what it does by itself, which takes more than twice the time.
my $bound = join ' ', map { "--extra-arg=$_" } qw(-Xclang -analyzer-config -Xclang max-nodes=40000);
my $common = slurp('.clang-tidy') . $flags . $bound . qx(clang-tidy --version);

sub write_file($file, $text) {
    open my $out, '>', $file or die "$file: $!\n";
    print $out $text;
    close $out or die "$file: $!\n";
    return;
}

sub with_includes($file, $seen) {
    return '' if $seen->{$file}++ || !-f $file;
    my $text = slurp($file);
    return join '', "$file\n$text", map { with_includes("src/$_", $seen) } $text =~ /^\s*#\s*include\s*"([^"]+)"/mg;
}

# The output for each file with findings, two files at a time, behind the tests that measure time.
sub findings(@files) {
    my (%found, %busy);
    while (@files || %busy) {
        while (@files && keys %busy < 2) {
            my $file = shift @files;
            my $log = "$folder/" . ($file =~ tr{/}{_}r) . '.log';
            my $pid = fork // die "fork: $!\n";
            exec "nice -n 19 clang-tidy --quiet $bound $file -- $flags >$log 2>/dev/null </dev/null" if !$pid;
            $busy{$pid} = [$file, $log];
        }
        my $pid = wait;
        my ($file, $log) = (delete $busy{$pid} // next)->@*;
        $found{$file} = slurp($log) || "clang-tidy: status $?" if $? || -s $log;
        unlink $log;
    }
    return %found;
}

my $sample = "$folder/sample.cpp";
write_file($sample, "#include <string>\nint f(std::string s) { std::string t = std::move(s); return *static_cast<int*>(0) + int(s.size()); }\n");
my %sample = findings($sample);
like $sample{$sample}, qr/bugprone-use-after-move/, 'a use after a move is found';

my @core = sources('core');
cmp_ok scalar(@core), '>', 0, 'there are sources';
my %mark = map { $_ => "$folder/" . sha256_hex($common, with_includes($_, {})) } @core;
my %found = findings(grep { !-e $mark{$_} } @core);
write_file($mark{$_}, '') for grep { !$found{$_} } @core;
is join("", map { $found{$_} } sort keys %found), '', 'clang-tidy finds nothing in the core';

done_testing;
