# The promise: all C++ is laid out as .clang-format says (clang-format -i mends it).
use v5.36;
use Billing::Process qw(root);
use Billing::Source qw(sources);
use Test::More;

chdir root() or die $!;
my @files = sources();
cmp_ok scalar(@files), '>', 0, 'there are sources';

my $output = '';
while (my @some = splice @files, 0, 50) {
    $output .= qx(clang-format --dry-run --ferror-limit=1 @some 2>&1);
    $output .= "clang-format: exit code $?\n" if $?;
}
is $output, '', 'clang-format would change nothing';

# That it would find something:
like qx(printf 'int  f( ) {return 1 ;}\n' | clang-format --dry-run --assume-filename=src/domain/x.cpp 2>&1), qr/warning: code should be/,
    'bad layout is found';

done_testing;
