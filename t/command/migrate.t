# The schema comes by numbered files: from nothing and from every earlier version to the same, whoever runs the command how often and at the same
# time; and what does not fit is refused and changes nothing. S1.
use v5.36;
use Billing::Database;
use Billing::Process qw(new_directory root slurp);
use Billing::Test ();
use File::Basename qw(basename);
use File::Copy qw(copy);
use POSIX ();
use Test::More;

my $db = Billing::Database->new;
my @files = sort glob root() . '/migrations/*.sql';
my $number = 0;

sub database() { my $name = 'm' . ++$number; $db->psql("CREATE DATABASE $name"); return $name }
sub folder(@some) { my $folder = new_directory(); copy($_, $folder) or die "$_: $!\n" for @some; return $folder }
sub migrate($name, $folder, @more) { Billing::Test::run_command('migrate', '--dir', $folder, @more, '--dsn', $db->dsn(dbname => $name)) }
sub schema($name) {
    my $text = qx(@{[Billing::Database::_bin('pg_dump')]} --schema-only --schema=billing -d '@{[$db->dsn(dbname => $name)]}');
    return $text =~ s/^(?:--|SET |SELECT pg_catalog|\\).*\n//gmr;
}
sub applied($name) { [$db->dbi(dbname => $name)->selectcol_arrayref('SELECT name FROM billing.schema_migrations ORDER BY applied_at, name')->@*] }

my @names = map { basename $_ } @files;
is_deeply [grep { !/^\d{4}_[a-z_]+\.sql$/ } @names], [], 'S1: files are numbered and named';
is scalar(keys %{{map { /^(\d+)/ => 1 } @names}}), scalar(@names), 'S1: no number is there twice';

my $fresh = database();
my $whole = folder(@files);
my $said = migrate($fresh, $whole, '--dry-run');
is "$said->{code} " . ($said->{out} =~ /(\d+) of \d+ migrations pending/)[0], '0 ' . @files, 'S1: a dry run tells of all of them';
is_deeply applied($fresh), [], 'and applies none';
$said = migrate($fresh, $whole);
is $said->{code}, 0, 'S1: from nothing' or diag $said->{err};
is_deeply applied($fresh), \@names, 'S1: in order';
my $wanted = schema($fresh);
like $wanted, qr/CREATE TABLE billing\.accounts/, 'there is a schema';
$said = migrate($fresh, $whole);
is "$said->{code} $said->{out}", '0 0 of ' . @files . " migrations applied now\n", 'S1: again: nothing is left to do';

subtest 'S1: from every earlier version' => sub {
    for my $count (1 .. $#files) {
        my $name = database();
        is migrate($name, folder(@files[0 .. $count - 1]))->{code}, 0, "$names[$count - 1] and what comes before";
        is migrate($name, $whole)->{code}, 0, 'and then all';
        ok schema($name) eq $wanted, 'is the same';
        $db->psql("DROP DATABASE $name");
    }
};

subtest 'S1: many at once' => sub {
    my $name = database();
    my @pids = map { my $pid = fork // die; POSIX::_exit(migrate($name, $whole)->{code}) if !$pid; $pid } 1 .. 6;
    is_deeply [map { waitpid $_, 0; $? } @pids], [(0) x 6], 'all succeed';
    is_deeply applied($name), \@names, 'each file once';
    ok schema($name) eq $wanted, 'and the schema is the same';
};

subtest 'S1: what does not fit' => sub {
    my $changed = folder(@files);
    open my $out, '>>', "$changed/$names[2]" or die $!;
    print $out "SELECT 1;\n";
    close $out;
    $said = migrate($fresh, $changed);
    is $said->{code}, 1, 'a file that has changed since';
    like $said->{err}, qr/\Q$names[2]\E has changed since it was applied; restore the file and put the change into a new migration/, 'is named';

    my $late = folder(@files);
    Billing::Nginx::write_file("$late/0001_aaa.sql", "SELECT 1;\n");
    $said = migrate($fresh, $late);
    is $said->{code}, 1, 'a file that comes before others that are applied';
    like $said->{err}, qr/0001_aaa\.sql comes before \Q$names[-1]\E, which is applied; give it a higher number/, 'is named';

    my $broken = folder(@files);
    Billing::Nginx::write_file("$broken/9999_broken.sql", "CREATE TABLE billing.half (a integer);\nSELECT nonsense;\n");
    $said = migrate($fresh, $broken);
    is $said->{code}, 1, 'one that fails';
    like $said->{err}, qr/9999_broken\.sql: .*nonsense/s, 'is named with its reason';
    ok schema($fresh) eq $wanted, 'and half of it is not there';

    is migrate($fresh, new_directory())->{code}, 1, 'an empty folder';
    is Billing::Test::run_command('migrate', '--dir', $whole, '--dsn', 'host=/nowhere dbname=x')->{code}, 3, 'no PostgreSQL';
};
done_testing;
